//! `[default.tls]`: HTTPS. The keys are those of Rocket, and so is the rule that a relative path in a file starts at that file.

use std::path::PathBuf;

use super::InvalidValue;
use super::table::settings;

settings! {
    "tls";
    /// HTTPS. Without `tls.certs` and `tls.key` Footfall speaks plain HTTP. Footfall reads the files again when they change.
    pub struct TlsSettings {
        /// PEM file of the certificate, followed by its intermediate certificates.
        #[serde(deserialize_with = "path")]
        pub certs: Option<PathBuf> = None;
        /// PEM file of the certificate's private key: PKCS#8, PKCS#1 (RSA) or SEC1 (ECDSA), not encrypted.
        #[serde(deserialize_with = "path")]
        pub key: Option<PathBuf> = None;
        /// The table `tls.mutual`.
        pub mutual: MutualTlsSettings = MutualTlsSettings::default();
    }
}

settings! {
    "tls.mutual";
    /// Certificates of clients (mutual TLS).
    pub struct MutualTlsSettings {
        /// PEM file of the authorities that sign the certificates of clients. Without it Footfall asks for no certificates.
        /// It refuses a certificate that none of them has signed, in the handshake.
        #[serde(deserialize_with = "path")]
        pub ca_certs: Option<PathBuf> = None;
        /// Whether Footfall also refuses clients that have no certificate.
        pub mandatory: bool = false;
    }
}

impl TlsSettings {
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        match (&self.certs, &self.key) {
            (Some(_), None) => return InvalidValue::because("tls.certs", "needs tls.key, its private key"),
            (None, Some(_)) => return InvalidValue::because("tls.key", "needs tls.certs, its certificate"),
            _ => {}
        }
        if self.mutual.ca_certs.is_some() && self.certs.is_none() {
            return InvalidValue::because("tls.mutual.ca_certs", "needs tls.certs and tls.key");
        }
        if self.mutual.mandatory && self.mutual.ca_certs.is_none() {
            return InvalidValue::because("tls.mutual.mandatory", "needs tls.mutual.ca_certs");
        }
        Ok(())
    }
}

/// Reads the path of a file. An empty one is none.
fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    use rocket::figment::value::magic::RelativePathBuf;
    use serde::Deserialize;

    let path = Option::<RelativePathBuf>::deserialize(deserializer)?;
    Ok(path.filter(|path| !path.original().as_os_str().is_empty()).map(|path| path.relative()))
}
