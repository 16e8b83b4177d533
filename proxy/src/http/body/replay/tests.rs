use std::{collections::VecDeque, future::poll_fn};

use proptest::prelude::*;

use super::*;

/// A body that gives a piece each time it is let.
#[derive(Default)]
struct Stepped {
    pieces: VecDeque<Option<Result<Bytes, ()>>>,
    waker: Option<Waker>,
}

impl Body for Stepped {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match self.pieces.pop_front() {
            None => Poll::Ready(None),
            Some(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Some(Err(()))) => Poll::Ready(Some(Err("broken"))),
            Some(None) => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn body(pieces: &[&[u8]]) -> Stepped {
    let pieces = pieces.iter().map(|piece| Some(Ok(Bytes::copy_from_slice(piece)))).collect();
    Stepped { pieces, waker: None }
}

async fn next(reader: &mut ReplayReader<Stepped>) -> Option<Result<Bytes, UploadError>> {
    let frame = poll_fn(|cx| Pin::new(&mut *reader).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().expect("data")))
}

async fn whole(reader: &mut ReplayReader<Stepped>) -> Result<Vec<u8>, UploadError> {
    let mut all = Vec::new();
    while let Some(data) = next(reader).await {
        all.extend_from_slice(&data?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_small_upload_is_read_again() {
    let upload = Replay::new(body(&[b"one", b"two", b"three"]), None, None);
    let mut first = upload.reader();
    assert_eq!(next(&mut first).await, Some(Ok(Bytes::from_static(b"one"))));
    drop(first);
    for _ in 0..3 {
        assert!(upload.is_whole());
        assert_eq!(whole(&mut upload.reader()).await.as_deref(), Ok(&b"onetwothree"[..]));
    }
}

#[tokio::test]
async fn a_large_upload_is_read_once() {
    let half = vec![7; KEPT / 2 + 1];
    let upload = Replay::new(body(&[&half, &half, b"end"]), None, None);
    let mut reader = upload.reader();
    assert_eq!(next(&mut reader).await.map(|data| data.map(|data| data.len())), Some(Ok(half.len())));
    assert!(upload.is_whole(), "half of it is still kept");
    let mut other = upload.reader();
    assert_eq!(whole(&mut reader).await.map(|rest| rest.len()), Ok(half.len() + 3));
    assert!(!upload.is_whole());
    assert_eq!(whole(&mut other).await, Err(UploadError::Lost));
    assert_eq!(upload.0.lock().kept.len(), 0, "and nothing of it is held");
}

#[tokio::test]
async fn nothing_is_kept_once_a_response_began() {
    let upload = Replay::new(body(&[b"one", b"two", b"three"]), None, None);
    let mut reader = upload.reader();
    assert_eq!(next(&mut reader).await, Some(Ok(Bytes::from_static(b"one"))));
    upload.release();
    assert_eq!(whole(&mut reader).await.as_deref(), Ok(&b"twothree"[..]));
    assert!(!upload.is_whole());
}

#[tokio::test]
async fn what_broke_stays_broken() {
    let mut broken = body(&[b"one"]);
    broken.pieces.push_back(Some(Err(())));
    let upload = Replay::new(broken, None, None);
    assert_eq!(whole(&mut upload.reader()).await, Err(UploadError::Broken));
    assert!(!upload.is_whole());
    assert_eq!(whole(&mut upload.reader()).await, Err(UploadError::Broken));
}

/// Two attempts at once: whichever the body would wake, neither is forgotten.
#[tokio::test]
async fn a_reader_that_goes_leaves_the_other_awake() {
    let mut slow = Stepped::default();
    slow.pieces.extend([None, None, Some(Ok(Bytes::from_static(b"late")))]);
    let upload = Replay::new(slow, None, None);
    let (mut stays, mut goes) = (upload.reader(), upload.reader());
    let staying = tokio::spawn(async move { whole(&mut stays).await });
    tokio::task::yield_now().await;
    let pending = poll_fn(|cx| Poll::Ready(Pin::new(&mut goes).poll_frame(cx).is_pending())).await;
    assert!(pending, "the body remembers this one now");
    drop(goes);
    let heard = tokio::time::timeout(std::time::Duration::from_secs(60), staying).await;
    assert_eq!(heard.expect("woken").expect("no panic").as_deref(), Ok(&b"late"[..]));
}

proptest! {
    /// Any number of readers, in any order, see the same bytes, or are told that they cannot.
    #[test]
    fn readers_agree(pieces in prop::collection::vec(1_usize..40_000, 0..6), turns in prop::collection::vec(0_usize..3, 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let texts: Vec<Vec<u8>> = pieces.iter().enumerate().map(|(i, length)| vec![u8::try_from(i).expect("few"); *length]).collect();
        let slices: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let upload = Replay::new(body(&slices), None, None);
        let mut readers = [upload.reader(), upload.reader(), upload.reader()];
        let mut seen = [const { Vec::new() }; 3];
        let mut lost = [false; 3];
        for turn in turns {
            match runtime.block_on(next(&mut readers[turn])) {
                Some(Ok(data)) => seen[turn].extend_from_slice(&data),
                Some(Err(error)) => {
                    prop_assert_eq!(error, UploadError::Lost);
                    lost[turn] = true;
                }
                None => prop_assert!(seen[turn] == texts.concat()),
            }
            prop_assert!(lost[turn] || texts.concat().starts_with(&seen[turn]));
            let length = |piece: &UploadPiece| match piece {
                UploadPiece::Data(data) => data.len(),
                UploadPiece::Trailers(_) => 0,
            };
            let kept: usize = upload.0.lock().kept.iter().map(length).sum();
            prop_assert!(kept <= KEPT);
        }
    }
}

#[tokio::test]
async fn a_follower_takes_nothing_and_a_restart_ends_earlier_readers() {
    let upload = Replay::new(body(&[b"one", b"two", b"three"]), None, None);
    let (mut first, mut follower) = (upload.reader(), upload.follower());
    let next = async |reader: &mut ReplayReader<_>| {
        let frame = poll_fn(|cx| Pin::new(&mut *reader).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().expect("data")))
    };
    let waits = tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut follower)).await;
    assert!(waits.is_err(), "nobody has read anything yet");
    assert_eq!(next(&mut first).await, Some(Ok("one".into())));
    assert_eq!(next(&mut follower).await, Some(Ok("one".into())));
    upload.restart();
    assert_eq!(next(&mut first).await, Some(Err(UploadError::Lost)));
    let mut second = upload.reader();
    for piece in ["one", "two", "three"] {
        assert_eq!(next(&mut second).await, Some(Ok(piece.into())));
    }
    assert_eq!(next(&mut second).await, None);
    for want in [Some("two"), Some("three"), None] {
        assert_eq!(next(&mut follower).await, want.map(|piece| Ok(piece.into())));
    }
}
