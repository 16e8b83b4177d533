//! What runs in the pods of the test cluster, as one static program:
//! `pause` holds a pod's namespaces, `echo` tells every caller what it sees, `get` is a client that prints an answer, `load` one that
//! asks at a fixed rate and logs every request.
//!
//! It answers HTTP/1.1 on port 8080, TCP on 9000 and UDP on 9001, and knows nothing of the mesh.

mod echo;
mod get;
mod load;

use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some("pause") => loop {
            thread::park();
        },
        Some("echo") => echo::serve(),
        Some("get") => match arguments.next() {
            Some(url) => get::print(&url),
            None => Err("get needs a URL".into()),
        },
        Some("load") => load::main(&arguments.collect::<Vec<_>>()),
        _ => Err("usage: pod pause | echo | get URL | load URL REQUESTS_PER_SECOND SECONDS".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
