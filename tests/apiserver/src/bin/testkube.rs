//! A Kubernetes API server by hand: prints how to talk to it, and serves until Ctrl-C or the end of standard input.

use std::io::Read as _;

use maesh_test_support::tool;
use maesh_testkube::ApiServer;

fn main() -> anyhow::Result<()> {
    let server = ApiServer::start()?;
    let kubectl = tool("kubectl")?;
    println!("folder {}", server.namespace().folder().display());
    println!(
        "nsenter --net={} env KUBECONFIG={} {} get namespaces",
        server.namespace().file().display(),
        server.kubeconfig().display(),
        kubectl.display()
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
