/** Lookup NAME...: what InetAddress finds, one line a name: name, milliseconds, addresses or a word. */
public final class Lookup {
    public static void main(String[] names) {
        for (String name : names) {
            long from = System.nanoTime();
            StringBuilder words = new StringBuilder();
            try {
                for (java.net.InetAddress address : java.net.InetAddress.getAllByName(name)) {
                    words.append(' ').append(address.getHostAddress());
                }
            } catch (java.net.UnknownHostException missing) {
                words.append(" none");
            }
            System.out.println(name + " " + (System.nanoTime() - from) / 1_000_000 + words);
        }
    }
}
