use std::net::Ipv4Addr;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    task::JoinHandle,
    time::timeout,
};

use super::*;

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A relayed stream: the caller's and the endpoint's own ends of it, and how it went.
async fn relayed(idle: Option<Duration>) -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    let ((caller, accepted), (dialled, endpoint)) = (pair().await, pair().await);
    (caller, endpoint, tokio::spawn(relay(accepted, Bytes::new(), dialled, idle)))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The byte at `position` of an endless text that repeats with no power of two.
fn pattern(seed: u64, position: u64) -> u8 {
    let mixed = (position / 251 + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (mixed ^ position) as u8
}

/// Sends `length` bytes of the text in writes of the given sizes, over and over, then says that it is done.
async fn send_text(stream: &mut (impl AsyncWriteExt + Unpin), seed: u64, length: u64, sizes: &[usize]) {
    let mut sent = 0;
    for size in sizes.iter().cycle() {
        let next = length.min(sent + *size as u64);
        let chunk: Vec<u8> = (sent..next).map(|position| pattern(seed, position)).collect();
        stream.write_all(&chunk).await.unwrap();
        sent = next;
        if sent == length {
            break;
        }
    }
    stream.shutdown().await.unwrap();
}

/// Reads the text to its end in reads of the given size; returns its length.
async fn read_text(stream: &mut (impl AsyncReadExt + Unpin), seed: u64, size: usize) -> u64 {
    let mut room = vec![0; size];
    let mut length = 0;
    loop {
        let read = stream.read(&mut room).await.unwrap();
        if read == 0 {
            return length;
        }
        for byte in &room[..read] {
            assert_eq!(*byte, pattern(seed, length), "wrong byte at {length}");
            length += 1;
        }
    }
}

async fn both_texts(up: u64, down: u64, sizes: &[usize], reads: usize) -> Relayed {
    let (mut caller, mut endpoint, went) = relayed(Some(PATIENCE)).await;
    let (mut caller_reads, mut caller_writes) = caller.split();
    let (mut endpoint_reads, mut endpoint_writes) = endpoint.split();
    let (_, got_up, _, got_down) = tokio::join!(
        send_text(&mut caller_writes, 1, up, sizes),
        read_text(&mut endpoint_reads, 1, reads),
        send_text(&mut endpoint_writes, 2, down, sizes),
        read_text(&mut caller_reads, 2, reads),
    );
    assert_eq!((got_up, got_down), (up, down));
    timeout(PATIENCE, went).await.unwrap().unwrap()
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let outcome = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn bulk_both_ways_at_once() {
    let length = 24 << 20;
    for (case, sizes, reads) in [
        ("large writes, large reads", &[256 << 10][..], 256 << 10),
        ("odd writes, small reads", &[70_001, 3, 9_999][..], 4_096),
        ("small writes", &[700][..], 64 << 10),
    ] {
        let went = both_texts(length, length + 7, sizes, reads).await;
        assert_eq!(went, Relayed { to_endpoint: length, to_caller: length + 7, end: RelayEnd::Closed }, "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_sizes_arrive_whole(
        up in 0_u64..600_000,
        down in 0_u64..600_000,
        sizes in prop::collection::vec(1_usize..200_000, 1..5),
        reads in 64_usize..200_000,
    ) {
        let went = runtime().block_on(both_texts(up, down, &sizes, reads));
        prop_assert_eq!(went, Relayed { to_endpoint: up, to_caller: down, end: RelayEnd::Closed });
    }
}

#[tokio::test]
async fn first_bytes_come_first() {
    let ((mut caller, accepted), (dialled, mut endpoint)) = (pair().await, pair().await);
    let went = tokio::spawn(relay(accepted, Bytes::from_static(b"hello "), dialled, None));
    caller.write_all(b"world").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut text = String::new();
    endpoint.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");
    drop(endpoint);
    assert_eq!(went.await.unwrap(), Relayed { to_endpoint: 11, to_caller: 0, end: RelayEnd::Closed });
}

#[tokio::test]
async fn a_half_close_leaves_the_other_half_open() {
    for caller_first in [true, false] {
        let (caller, endpoint, went) = relayed(None).await;
        let (mut first, mut second) = if caller_first { (caller, endpoint) } else { (endpoint, caller) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut question = String::new();
        second.read_to_string(&mut question).await.unwrap();
        // The end has arrived; the answer still gets back, in parts.
        for part in ["an", "swer"] {
            second.write_all(part.as_bytes()).await.unwrap();
            let mut got = vec![0; part.len()];
            first.read_exact(&mut got).await.unwrap();
            assert_eq!(got, part.as_bytes());
        }
        assert!(!went.is_finished());
        second.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        let went = timeout(PATIENCE, went).await.unwrap().unwrap();
        let carried = if caller_first { (8, 6) } else { (6, 8) };
        assert_eq!((went.end, (went.to_endpoint, went.to_caller)), (RelayEnd::Closed, carried), "{caller_first}");
    }
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    for (case, caller_resets, half_closed) in [
        ("caller", true, false),
        ("endpoint", false, false),
        ("caller, after its end", true, true),
        ("endpoint, after its end", false, true),
    ] {
        let (caller, endpoint, went) = relayed(None).await;
        let (mut one, mut other) = if caller_resets { (caller, endpoint) } else { (endpoint, caller) };
        one.write_all(b"x").await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
        if half_closed {
            one.shutdown().await.unwrap();
            assert_eq!(other.read(&mut [0]).await.unwrap(), 0, "{case}");
        }
        one.set_zero_linger().unwrap();
        drop(one);
        let end = timeout(PATIENCE, went).await.unwrap().unwrap().end;
        assert_eq!(end, if caller_resets { RelayEnd::CallerReset } else { RelayEnd::EndpointReset }, "{case}");
        // After an end was read, a reset shows when writing.
        let seen = if half_closed { other.write(b"y").await.is_err() } else { is_reset(&mut other).await };
        assert!(seen, "{case}");
    }
}

#[tokio::test]
async fn what_came_before_a_reset_arrives() {
    let (mut caller, mut endpoint, went) = relayed(None).await;
    endpoint.write_all(b"last words").await.unwrap();
    endpoint.set_zero_linger().unwrap();
    drop(endpoint);
    let mut words = [0; 10];
    caller.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    assert!(is_reset(&mut caller).await);
    assert_eq!(went.await.unwrap(), Relayed { to_endpoint: 0, to_caller: 10, end: RelayEnd::EndpointReset });
}

#[tokio::test]
async fn a_reset_is_passed_on_although_the_other_side_does_not_read() {
    for caller_resets in [true, false] {
        let (caller, endpoint, went) = relayed(None).await;
        let (mut one, mut other) = if caller_resets { (caller, endpoint) } else { (endpoint, caller) };
        // Fills every buffer on the way, until nothing is taken for a while.
        let chunk = vec![7; 1 << 20];
        while timeout(Duration::from_millis(100), one.write_all(&chunk)).await.is_ok() {}
        one.set_zero_linger().unwrap();
        drop(one);
        let end = timeout(PATIENCE, went).await.unwrap().unwrap().end;
        assert_eq!(end, if caller_resets { RelayEnd::CallerReset } else { RelayEnd::EndpointReset });
        assert!(is_reset(&mut other).await);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let length = 6 << 20;
    let (mut caller, mut endpoint, went) = relayed(None).await;
    let sender = tokio::spawn(async move {
        send_text(&mut endpoint, 3, length, &[1 << 20]).await;
        endpoint
    });
    // Reads nothing until the sender is held up, then in small pieces with others' turns between.
    let mut got = 0;
    let mut room = [0; 1_500];
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    while let read @ 1.. = caller.read(&mut room).await.unwrap() {
        assert!(room[..read].iter().zip(got..).all(|(byte, position)| *byte == pattern(3, position)), "near {got}");
        got += read as u64;
        tokio::task::yield_now().await;
    }
    assert_eq!(got, length);
    drop((caller, sender.await.unwrap()));
    assert_eq!(went.await.unwrap().to_caller, length);
}

#[tokio::test]
async fn many_short_streams() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (front, back) = (listener.local_addr().unwrap(), backend.local_addr().unwrap());
    let echo = tokio::spawn(async move {
        loop {
            let (mut stream, _) = backend.accept().await.unwrap();
            tokio::spawn(async move {
                let mut word = [0; 8];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word).await.unwrap();
            });
        }
    });
    let relays = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let endpoint = TcpStream::connect(back).await.unwrap();
            tokio::spawn(relay(stream, Bytes::new(), endpoint, Some(PATIENCE)));
        }
    });
    let callers: Vec<_> = (0..20_u32)
        .map(|caller| {
            tokio::spawn(async move {
                for turn in 0..50_u32 {
                    let mut stream = TcpStream::connect(front).await.unwrap();
                    let word = [caller.to_be_bytes(), turn.to_be_bytes()].concat();
                    stream.write_all(&word).await.unwrap();
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).await.unwrap();
                    assert_eq!(got, word);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    echo.abort();
    relays.abort();
}

#[tokio::test(start_paused = true)]
async fn silence_on_both_sides_ends_a_stream() {
    let idle = Duration::from_secs(3600);
    let (mut caller, mut endpoint, went) = relayed(Some(idle)).await;
    let began = Instant::now();
    // Either direction keeps it alive.
    for turn in 0..4 {
        sleep(idle * 9 / 10).await;
        let (from, to) = if turn % 2 == 0 { (&mut caller, &mut endpoint) } else { (&mut endpoint, &mut caller) };
        from.write_all(b"x").await.unwrap();
        to.read_exact(&mut [0]).await.unwrap();
    }
    let last = Instant::now();
    assert!(last - began > idle * 3);
    assert_eq!(went.await.unwrap().end, RelayEnd::Idle);
    let silent = Instant::now() - last;
    assert!(silent >= idle && silent <= idle + idle / LOOKS + Duration::from_secs(1), "cut after {silent:?}");
}

#[tokio::test]
async fn dropping_closes_both_sides() {
    let (mut caller, mut endpoint, went) = relayed(None).await;
    caller.write_all(b"x").await.unwrap();
    endpoint.read_exact(&mut [0]).await.unwrap();
    went.abort();
    assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(endpoint.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn pipes_are_lent_again_only_when_empty() {
    runtime().block_on(async {
        let (mut near, far) = pair().await;
        near.write_all(b"left over").await.unwrap();
        far.readable().await.unwrap();
        let mut dirty = pipe::Pipe::acquire().unwrap();
        assert_eq!(dirty.fill(&far).unwrap(), 9);
        drop(dirty);
        let clean = pipe::Pipe::acquire().unwrap();
        assert_eq!(clean.waiting(), 0);
        // Nothing of the other stream comes out of it.
        near.write_all(b"new").await.unwrap();
        far.readable().await.unwrap();
        let mut clean = clean;
        assert_eq!(clean.fill(&far).unwrap(), 3);
        assert_eq!(clean.empty(&far).unwrap(), 3);
        let mut got = [0; 3];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"new");
    });
}

#[test]
fn lending_is_bounded() {
    let buffers: Vec<_> = (0..2_000).map(|_| buffer::Buffer::acquire()).collect();
    let room: usize = buffers.into_iter().map(|mut buffer| buffer.room().len()).sum();
    assert!(room <= 33 << 20, "{room} bytes for 2,000 slow streams");
    let pipes: Vec<_> = std::iter::from_fn(pipe::Pipe::acquire).take(10_000).collect();
    assert!(pipes.len() <= 128, "{} pipes", pipes.len());
    drop(pipes);
    assert!(pipe::Pipe::acquire().is_some());
}
