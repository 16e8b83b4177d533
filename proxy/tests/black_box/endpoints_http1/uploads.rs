//! Endpoints that answer before they have read the upload.

use super::*;

/// An endpoint that answers once it has the head, and then reads a body of `length`; and how much of that it has read.
async fn answers_before_it_reads(length: usize) -> (SocketAddr, watch::Receiver<usize>) {
    let got = watch::Sender::new(0);
    let seen = got.subscribe();
    let endpoint = endpoints::raw(move |mut stream| {
        let got = got.clone();
        async move {
            let Some((_, rest)) = read_head(&mut stream).await else { return };
            stream.write_all(OK).await.expect("written");
            let body = read_exactly(&mut stream, rest, length).await;
            got.send_replace(body.len());
        }
    })
    .await;
    (endpoint, seen)
}

/// An endpoint that has answered and goes on reading gets the rest of the upload.
#[tokio::test]
async fn an_upload_goes_on_after_the_answer() {
    const LENGTH: usize = 300_000;
    let (endpoint, mut seen) = answers_before_it_reads(LENGTH).await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say(&format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let (head, body) = raw.hear().await;
    assert!(head.starts_with("http/1.1 200") && body == "ok", "{head}");
    for _ in 0..3 {
        raw.say(&"x".repeat(LENGTH / 3)).await;
    }
    within(seen.wait_for(|got| *got == LENGTH)).await.expect("all of it");
}

/// Callers that write everything before they read anything, to an endpoint that answers before it has read everything.
#[tokio::test]
async fn both_directions_go_on_by_themselves() {
    const LENGTH: usize = 8 << 20;
    let endpoint = endpoints::raw(|stream| async move {
        let (mut read, mut write) = stream.into_split();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match read.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let down = tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            write.write_all(head.as_bytes()).await.expect("written");
            // Before the caller reads any of it, more than all buffers on the way hold.
            let _ = write.write_all(&vec![b'd'; LENGTH]).await;
        });
        let mut total = 0;
        let mut some = vec![0; 64 * 1024];
        // Whoever closes before it has read everything resets the connection, and with it its own response.
        while total < LENGTH {
            match read.read(&mut some).await {
                Ok(read @ 1..) => total += read,
                _ => return,
            }
        }
        down.await.expect("no panic");
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("PUT / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    tokio::time::timeout(Duration::from_secs(60), stream.write_all(&vec![b'u'; LENGTH]))
        .await
        .expect("taken")
        .expect("written");
    let mut total = 0;
    let mut some = vec![0; 64 * 1024];
    let read = async {
        while total < LENGTH {
            match stream.read(&mut some).await {
                Ok(read @ 1..) => total += read,
                other => panic!("{other:?} after {total}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("all of it");
}

/// An endpoint that responds while it does not read, and reads later. Small pieces of the upload wait in the proxy when a piece
/// of the response passes them.
#[tokio::test]
async fn an_upload_goes_on_when_the_endpoint_reads_again() {
    const LENGTH: usize = 64 << 20;
    let (begin, mut begun) = (watch::channel(0), watch::channel(0_usize));
    let told = begin.1.clone();
    let all_read = begun.0.clone();
    let endpoint = endpoints::raw(move |mut stream| {
        let (mut told, all_read) = (told.clone(), all_read.clone());
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
            let _ = told.wait_for(|step| *step >= 1).await;
            let _ = stream.write_all(b"ha").await;
            let _ = told.wait_for(|step| *step >= 2).await;
            let mut some = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = stream.read(&mut some).await {
                all_read.send_modify(|total| *total += read);
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut read, mut write) = stream.into_split();
    let head = format!("PUT / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {LENGTH}\r\n\r\n");
    write.write_all(head.as_bytes()).await.expect("written");
    // Small pieces, until nobody on the way takes any more.
    let piece = [b'u'; 3000];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), write.write(&piece)).await {
        sent += written.expect("written");
        tokio::task::yield_now().await;
    }
    assert!(sent < LENGTH, "{sent}");
    let _ = begin.0.send(1);
    let mut heard = Vec::new();
    within(async {
        while !heard.ends_with(b"ha") {
            assert_ne!(read.read_buf(&mut heard).await.expect("read"), 0);
        }
    })
    .await;
    let _ = begin.0.send(2);
    // The endpoint gets everything that was sent.
    within(begun.1.wait_for(|total| *total + 1024 >= sent)).await.expect("alive");
}

/// A caller that goes on with its upload later than any head may take, after the whole answer: it is not cut.
#[tokio::test]
async fn an_upload_may_go_on_for_long_after_the_answer() {
    const LENGTH: usize = 30_000;
    let limits = Limits { head_timeout: Duration::from_millis(200), ..Limits::default() };
    let fed = Fed::new(Config { limits, ..config() }).await;
    fed.begin().await;
    let (endpoint, mut seen) = answers_before_it_reads(LENGTH).await;
    let address = fed.http("web.shop", Scheme::Http, &[endpoint]).await;
    let mut raw = Raw::to(address).await;
    raw.say(&format!("POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    assert!(raw.hear().await.0.starts_with("http/1.1 200"));
    for _ in 0..3 {
        raw.say(&"x".repeat(LENGTH / 3)).await;
        // Longer than a head may take, and than the sweep needs to see it.
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    within(seen.wait_for(|got| *got == LENGTH)).await.expect("all of it");
}
