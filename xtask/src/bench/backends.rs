//! The endpoints behind every proxy, on the addresses `A`, `B` and `C` of the templates.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::rivals::{Setting, Template, free, need};
use crate::measure::Running;

/// Length of the body that every path has, except those of [`write_bodies`].
pub(crate) const BODY: usize = 128;

/// Names of the endpoints' addresses in templates.
pub(crate) const ENDPOINTS: [&str; 3] = ["A", "B", "C"];

/// Writes files of so many bytes, which the backends serve at [`path`].
pub(crate) fn write_bodies(template: &Template, lengths: &[usize]) -> Result<()> {
    let folder = template.folder().join("files");
    fs::create_dir_all(&folder)?;
    for length in lengths {
        fs::write(folder.join(length.to_string()), "x".repeat(*length)).context("writing a body")?;
    }
    Ok(())
}

/// Where a body of `length` bytes is.
pub(crate) fn path(length: usize) -> String {
    format!("/files/{length}")
}

/// The nginx that answers HTTP/1.1 for every endpoint.
pub(crate) fn nginx(setting: &Setting, template: &mut Template) -> Result<Running> {
    let program = need("nginx")?;
    template.set("BODY", "x".repeat(BODY));
    let addresses = addresses(template)?;
    let config = template.write("backend.conf", "backend.conf", 0)?;
    let mut command = setting.load(&program);
    command.arg("-c").arg(config);
    let mut process = Running::start("backend nginx", command)?;
    for address in addresses {
        process.wait_for_port(address)?;
    }
    Ok(process)
}

/// An nghttpd for each endpoint, which answers HTTP/2 without TLS with the files of the templates' folder.
pub(crate) fn nghttpd(setting: &Setting, template: &mut Template, arguments: &[String]) -> Result<Vec<Running>> {
    let program = need("nghttpd")?;
    let addresses = addresses(template)?;
    let start = |address: SocketAddr| {
        let mut command = setting.load(&program);
        command.args(["--no-tls", "--address", "127.0.0.1", "--htdocs"]).arg(template.folder());
        command.args(arguments).arg(address.port().to_string());
        let mut process = Running::start("backend nghttpd", command)?;
        process.wait_for_port(address)?;
        Ok(process)
    };
    addresses.into_iter().map(start).collect()
}

/// Gives every endpoint an address.
pub(crate) fn addresses(template: &mut Template) -> Result<Vec<SocketAddr>> {
    let give = |name: &&str| {
        let address = free()?;
        template.set_address(name, address);
        Ok(address)
    };
    ENDPOINTS.iter().map(give).collect()
}
