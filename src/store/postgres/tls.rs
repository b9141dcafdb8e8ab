mod bare;

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::bare::Bare;
use super::{
    dsn::{Dsn, Roots, Verify},
    error::OpenError,
};

/// The TLS that the address asks for. Without `sslrootcert`, the verifying modes
/// trust the public roots.
pub(super) fn connector(dsn: &Dsn) -> Result<MakeRustlsConnect, OpenError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match dsn.verify {
        Verify::Nothing => Arc::new(Unverified(Arc::clone(&provider))),
        Verify::Issuer | Verify::IssuerAndName => {
            let (roots, trusted) = match &dsn.roots {
                Roots::File(path) => read_roots(path)?,
                Roots::Public => {
                    let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
                    (RootCertStore { roots }, Vec::new())
                }
            };
            Arc::new(Verified {
                provider: Arc::clone(&provider),
                roots,
                trusted,
                name: dsn.verify == Verify::IssuerAndName,
            })
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &dsn.identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let certificates = read_certificates("sslcert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| file_error("sslkey", key, e.to_string()))?;
            config.with_client_auth_cert(certificates, key)?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn file_error(option: &'static str, path: &Path, why: String) -> OpenError {
    OpenError::TlsFile {
        option,
        path: path.display().to_string(),
        why,
    }
}

fn read_certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let fail = |why: String| file_error(option, path, why);
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?;
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let certificates = certificates.map_err(|e| fail(e.to_string()))?;
    if certificates.is_empty() {
        return Err(fail("it holds no certificate".into()));
    }
    Ok(certificates)
}

/// The roots, and the very certificates of the file.
fn read_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), OpenError> {
    let certificates = read_certificates("sslrootcert", path)?;
    let mut roots = RootCertStore::empty();
    // One that cannot be a root may still be the server's own.
    roots.add_parsable_certificates(certificates.iter().cloned());
    Ok((roots, certificates))
}

/// For the modes that prove nothing, and so judge nothing of the certificate.
/// That the server has its key would not say who it is either.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// `verify-ca`, and with the name `verify-full`, as libpq has them. PostgreSQL's
/// manual makes certificates that webpki does not read: X.509 version 1, a root as
/// the server's own, a name in the subject alone. These are read by [`Bare`].
#[derive(Debug)]
struct Verified {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    /// The certificates of `sslrootcert`.
    trusted: Vec<CertificateDer<'static>>,
    name: bool,
}

impl Verified {
    fn issuer(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            return Bare::read(end_entity)?.is_valid_at(now);
        }
        let judged = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms.all,
            )
        });
        let Err(refusal) = judged else { return Ok(()) };
        let Ok(bare) = Bare::read(end_entity) else {
            return Err(refusal);
        };
        if !bare.is_first_version() {
            return Err(refusal);
        }
        bare.is_valid_at(now)?;
        let roots = self.trusted.iter().filter_map(|root| Bare::read(root).ok());
        let mut roots = roots.filter(|root| root.is_valid_at(now).is_ok());
        match roots.any(|root| bare.is_signed_by(&root, algorithms)) {
            true => Ok(()),
            false => Err(refusal),
        }
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.issuer(end_entity, intermediates, now)?;
        if self.name {
            let parsed = ParsedCertificate::try_from(end_entity);
            let judged = parsed.and_then(|parsed| verify_server_name(&parsed, name));
            if let Err(refusal) = judged
                && !Bare::read(end_entity).is_ok_and(|bare| bare.is_called(name))
            {
                return Err(refusal);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match Bare::read(cert) {
            Ok(bare) if bare.is_first_version() => bare.has_signed(message, dss, algorithms),
            _ => verify_tls12_signature(message, cert, dss, algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match Bare::read(cert) {
            Ok(bare) if bare.is_first_version() => bare.has_signed(message, dss, algorithms),
            _ => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
