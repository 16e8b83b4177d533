//! The certificates of a test's API server: one authority, the server's, and as many users as wanted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// An authority and what it signed, as PEM files in one folder.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes the authority, and the key pair that signs ServiceAccount tokens, in `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "maesh-test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        fs::write(folder.join("ca.crt"), authority.self_signed(&key)?.pem())?;
        let tokens = KeyPair::generate()?;
        fs::write(folder.join("tokens.key"), tokens.serialize_pem())?;
        fs::write(folder.join("tokens.pub"), tokens.public_key_pem())?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(authority, key) })
    }

    /// The file `name` of the folder: `ca.crt`, `tokens.key`, `tokens.pub`, or what the other functions made.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes `NAME.crt` and `NAME.key` for a server with these DNS names and addresses.
    ///
    /// # Errors
    /// When a name is not one, or a file cannot be written.
    pub fn server(&self, name: &str, subjects: &[&str]) -> Result<()> {
        let subjects: Vec<String> = subjects.iter().map(|&subject| subject.to_owned()).collect();
        self.sign(name, name, &[], CertificateParams::new(subjects)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Makes `FILE.crt` and `FILE.key` for the user `name` in `groups`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn user(&self, file: &str, name: &str, groups: &[&str]) -> Result<()> {
        self.sign(file, name, groups, CertificateParams::new(Vec::new())?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        file: &str,
        name: &str,
        groups: &[&str],
        mut subject: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<()> {
        subject.distinguished_name = rcgen::DistinguishedName::new();
        subject.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            subject.distinguished_name.push(DnType::OrganizationName, *group);
        }
        subject.extended_key_usages = vec![usage];
        subject.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        fs::write(self.file(&format!("{file}.crt")), subject.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }
}
