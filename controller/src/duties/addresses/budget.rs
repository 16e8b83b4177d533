//! When own addresses no longer list every proxy.

/// Whether each address is to list a few proxies only, and no longer all. `budget` is for ports times proxies, which is
/// what kube-proxy on every node holds; 0: for ever all. `few` is how it is now.
///
/// Back only below four fifths of the budget: at its edge, each change of a Service or a node would else rewrite
/// everything. Where no proxy is seen, it stays: that says nothing about how large the cluster is.
pub(super) fn few(few: bool, ports: usize, proxies: usize, budget: u32) -> bool {
    if budget == 0 || proxies == 0 {
        return few && budget != 0;
    }
    let (held, budget) = (ports.saturating_mul(proxies) as u64, u64::from(budget));
    if few { held * 5 >= budget * 4 } else { held > budget }
}

#[cfg(test)]
mod tests {
    use super::few;

    #[test]
    fn it_goes_past_the_budget_and_comes_back_well_below() {
        let mut now = false;
        for (case, ports, proxies, budget, want) in [
            ("small", 10, 10, 1000, false),
            ("at the budget", 100, 10, 1000, false),
            ("past it", 101, 10, 1000, true),
            ("at it again", 100, 10, 1000, true),
            ("at four fifths", 80, 10, 1000, true),
            ("below", 79, 10, 1000, false),
            ("not yet past it", 100, 10, 1000, false),
            ("far past it", usize::MAX, 2, 1000, true),
            ("no proxy is seen", 100, 0, 1000, true),
            ("no port is needed", 0, 10, 1000, false),
            ("past it once more", 200, 10, 1000, true),
            ("never, as it was told", 200, 10, 0, false),
            ("and no proxy seen", 200, 0, 0, false),
        ] {
            now = few(now, ports, proxies, budget);
            assert_eq!(now, want, "{case}");
        }
    }
}
