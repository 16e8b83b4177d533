//! A certificate in files that change, as a Secret is mounted.
//!
//! The files are read again and again. What cannot be used never replaces the certificate in use, and one that is not
//! valid now does not replace one that is. If there is no valid one, an expired one is served, with a warning: clients
//! that do not verify it still get answers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{Certificate, Part, ServerTls, TlsError};
use crate::small_file;

/// A server's certificate and key in two files.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, PEM.
    pub chain: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// What the files hold, compared with the certificate in use.
enum FileState {
    Same,
    New,
    /// Another certificate that is not valid now, while the one in use is.
    NotValid(String),
}

impl CertificateFiles {
    /// Reads them once.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn load(&self) -> Result<ServerTls, TlsError> {
        ServerTls::new(self.read()?)
    }

    /// Reads them once, for DNS over TLS.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn load_for_dns(&self) -> Result<ServerTls, TlsError> {
        ServerTls::for_dns(self.read()?)
    }

    /// Looks every `interval` whether they changed, and uses what is new. Files that cannot be used, such as a chain that
    /// was replaced a moment before its key, leave the certificate in use; they are read again. Never returns.
    pub async fn keep_current(&self, tls: &ServerTls, interval: Duration) {
        let (mut of_files, mut of_present) = (Warning::default(), Warning::default());
        loop {
            let now = Timestamp::now();
            let chain = self.chain.display();
            let problem = match self.look(tls, now) {
                Ok(FileState::Same) => None,
                Ok(FileState::New) => {
                    let until = tls.current().validity().until().map(tracing::field::display);
                    tracing::info!(%chain, until, "serving with a new certificate");
                    None
                }
                Ok(FileState::NotValid(why)) => Some(why),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = of_files.changed(problem) {
                tracing::warn!(error, "cannot use the new certificate; the present one stays in use");
            }
            let problem = tls.current().validity().problem(now).map(|it| it.to_string());
            if let Some(error) = of_present.changed(problem) {
                tracing::warn!(
                    error,
                    %chain,
                    "serving with a certificate that clients refuse if they verify it; write one that is valid now, with \
                     its key; the files are read again every {interval:?}"
                );
            }
            tokio::time::sleep(interval).await;
        }
    }

    fn look(&self, tls: &ServerTls, now: Timestamp) -> Result<FileState, TlsError> {
        let (found, present) = (self.read()?, tls.current());
        if found.key.cert == present.key.cert {
            return Ok(FileState::Same);
        }
        if let (Some(problem), None) = (found.validity().problem(now), present.validity().problem(now)) {
            let chain = self.chain.display();
            let next = if problem.is_over() { "write one that is valid" } else { "it is used from then on" };
            return Ok(FileState::NotValid(format!("{chain}: {problem}; {next}")));
        }
        tls.replace(found);
        Ok(FileState::New)
    }

    fn read(&self) -> Result<Certificate, TlsError> {
        Certificate::parse(&read(&self.chain)?, &read(&self.key)?).map_err(|source| {
            let (chain, key) = (self.chain.display(), self.key.display());
            let files = match &source {
                TlsError::Pem { part: Part::Chain, .. } => chain.to_string(),
                TlsError::Pem { part: Part::Key, .. } => key.to_string(),
                _ => format!("{chain} and {key}"),
            };
            TlsError::Files { files, source: Box::new(source) }
        })
    }
}

/// The whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    small_file::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// A problem that is logged when it begins or changes.
#[derive(Default)]
struct Warning(Option<String>);

impl Warning {
    /// What is to be logged, now that this is the problem.
    fn changed(&mut self, problem: Option<String>) -> Option<&str> {
        if self.0 == problem {
            return None;
        }
        self.0 = problem;
        self.0.as_deref()
    }
}
