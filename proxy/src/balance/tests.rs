use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    hash::{by_hash, of_address},
    latency::Latency,
    p2c::{Load, cheaper_of_two},
};

struct Fixed(f32);

impl Load for Fixed {
    fn cost(&self, _now: u32) -> f32 {
        self.0
    }
}

fn draws(n: u64) -> impl Iterator<Item = u64> {
    (0..n).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

#[test]
fn the_cheaper_one_gets_the_request() {
    // Only a draw of itself twice sends a request to the dear one.
    for (case, costs, dear, share) in [
        ("two, one dear", &[1.0, 9.0][..], 1, 0.25),
        ("three, one dear", &[1.0, 9.0, 1.0], 1, 0.111),
        ("one alone is picked however dear", &[9.0], 0, 1.0),
    ] {
        let items: Vec<Fixed> = costs.iter().map(|cost| Fixed(*cost)).collect();
        let picked = draws(10_000).filter(|draw| {
            let picked = cheaper_of_two(&items, 0, *draw).expect(case);
            std::ptr::eq(picked, &raw const items[dear])
        });
        let got = picked.count() as f64 / 10_000.0;
        assert!((got - share).abs() < 0.02, "{case}: {got}");
    }
    assert!(cheaper_of_two::<Fixed>(&[], 0, 7).is_none());
}

#[test]
fn equal_ones_share() {
    let items: Vec<Fixed> = (0..4).map(|_| Fixed(1.0)).collect();
    let mut counts = [0_u32; 4];
    for draw in draws(40_000) {
        let picked = cheaper_of_two(&items, 0, draw).expect("four items");
        counts[items.iter().position(|item| std::ptr::eq(item, picked)).expect("one of them")] += 1;
    }
    assert!(counts.iter().all(|count| (8_000..12_000).contains(count)), "{counts:?}");
}

#[test]
fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
    let cell = Latency::default();
    cell.record(1_000, Duration::from_millis(2));
    cell.record(1_001, Duration::from_millis(500));
    assert!(cell.micros(1_001) > 400_000.0);
    cell.record(1_002, Duration::from_millis(2));
    assert!(cell.micros(1_002) > 100_000.0, "one fast answer does not redeem it");
    for i in 0..200 {
        cell.record(1_003 + i, Duration::from_millis(2));
    }
    assert!(cell.micros(1_203) < 10_000.0, "many do");
    cell.record(2_000, Duration::from_millis(500));
    assert!(cell.micros(60_000) < 10_000.0, "so does time, or it would never be tried again");
}

#[test]
fn a_source_stays_where_it_is() {
    let callers: Vec<IpAddr> = (0..=255_u8).map(|i| IpAddr::from([10, 0, 0, i])).collect();
    let five = [1_u16, 2, 3, 4, 5];
    let four = [1_u16, 2, 3, 5];
    let address = |item: &u16| SocketAddr::from(([10, 1, 0, 1], *item));
    let mut moved = 0;
    for caller in callers {
        let before = by_hash(&five, of_address(caller), address).expect("five");
        let after = by_hash(&four, of_address(caller), address).expect("four");
        if before == after {
            continue;
        }
        assert_eq!(*before, 4, "only callers of the removed one move");
        moved += 1;
    }
    assert!((20..90).contains(&moved), "{moved} of 256 callers were on the removed one");
}
