//! Takes the test cluster down: what a test's guard runs when the test has ended in whatever way.

fn main() -> anyhow::Result<()> {
    maesh_testcluster::down()
}
