//! A certificate without the rules of the web: of any version, with a name in the
//! subject.

use rustls::{
    CertificateError, DigitallySignedStruct, Error,
    client::danger::HandshakeSignatureValid,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    Certificate, Version,
    der::{Decode as _, Encode as _, asn1::ObjectIdentifier},
};

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

pub(super) struct Bare(Certificate);

impl Bare {
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Error> {
        let read = Certificate::from_der(der);
        read.map(Self)
            .map_err(|_| CertificateError::BadEncoding.into())
    }

    pub fn is_first_version(&self) -> bool {
        self.0.tbs_certificate.version == Version::V1
    }

    pub fn is_valid_at(&self, now: UnixTime) -> Result<(), Error> {
        let validity = &self.0.tbs_certificate.validity;
        let now = now.as_secs();
        if now < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// Whether `root` has issued this certificate, with nothing in between.
    pub fn is_signed_by(&self, root: &Self, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let (own, root) = (&self.0.tbs_certificate, &root.0.tbs_certificate);
        let Some(signature) = self.0.signature.as_bytes() else {
            return false;
        };
        let (Ok(signed), Ok(algorithm), Ok(key)) = (
            own.to_der(),
            identifier(&self.0.signature_algorithm),
            identifier(&root.subject_public_key_info.algorithm),
        ) else {
            return false;
        };
        let Some(public_key) = root.subject_public_key_info.subject_public_key.as_bytes() else {
            return false;
        };
        own.issuer == root.subject
            && own.signature == self.0.signature_algorithm
            && algorithms.all.iter().any(|candidate| {
                candidate.signature_alg_id().as_ref() == algorithm
                    && candidate.public_key_alg_id().as_ref() == key
                    && candidate
                        .verify_signature(public_key, &signed, signature)
                        .is_ok()
            })
    }

    /// Whether the server has this certificate's key.
    pub fn has_signed(
        &self,
        message: &[u8],
        dss: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        let info = &self.0.tbs_certificate.subject_public_key_info;
        let (Some(public_key), Ok(key)) = (
            info.subject_public_key.as_bytes(),
            identifier(&info.algorithm),
        ) else {
            return Err(CertificateError::BadEncoding.into());
        };
        let scheme = algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme);
        let fits = scheme.is_some_and(|(_, candidates)| {
            candidates.iter().any(|candidate| {
                candidate.public_key_alg_id().as_ref() == key
                    && candidate
                        .verify_signature(public_key, message, dss.signature())
                        .is_ok()
            })
        });
        match fits {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    /// Whether its subject's common name is the host's. As for libpq, that only
    /// counts where no alternative names are given.
    pub fn is_called(&self, name: &ServerName<'_>) -> bool {
        let own = &self.0.tbs_certificate;
        let extensions = own.extensions.iter().flatten();
        let ServerName::DnsName(name) = name else {
            return false;
        };
        let mut names = own.subject.0.iter().flat_map(|part| part.0.iter());
        !extensions
            .into_iter()
            .any(|e| e.extn_id == SUBJECT_ALT_NAME)
            && names.any(|part| {
                let common = std::str::from_utf8(part.value.value());
                part.oid == COMMON_NAME && common.is_ok_and(|common| matches(common, name.as_ref()))
            })
    }
}

/// What webpki compares: the content of the sequence.
fn identifier(
    algorithm: &x509_cert::spki::AlgorithmIdentifierOwned,
) -> Result<Vec<u8>, x509_cert::der::Error> {
    let mut content = algorithm.oid.to_der()?;
    if let Some(parameters) = &algorithm.parameters {
        content.extend(parameters.to_der()?);
    }
    Ok(content)
}

/// A star stands for the first label, and for nothing less or more.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(domain) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(matches("DB.example", "db.example"));
        assert!(matches("*.example", "db.example"));
        assert!(!matches("*.example", "a.db.example"));
        assert!(!matches("*.example", ".example"));
        assert!(!matches("db", "db.example"));
    }
}
