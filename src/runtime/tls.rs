use std::{
    fmt,
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

use super::Watched;

/// The files to serve TLS with, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its root.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients have to show a certificate that is signed by one of these.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS can't be served. It never shows what a file holds.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", crate::config::shown(file))]
pub struct TlsError {
    file: PathBuf,
    why: String,
}

/// Accepts TLS. The files are read again when they have changed, for the
/// connections from then on.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    config: Arc<Watched<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one can't be read, or they do not belong together.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let mut all = vec![files.cert.clone(), files.key.clone()];
        all.extend(files.client_ca.clone());
        let files = Arc::new(files);
        let read = files.clone();
        let watched = Watched::new(all, move || load(&read).map(Arc::new))?;
        Ok(Self {
            files,
            config: Arc::new(watched),
        })
    }

    /// Whether the certificate, and those between it and its root, are valid at
    /// that time.
    ///
    /// # Errors
    /// If one has expired or is not valid yet, or can't be read.
    pub fn valid_at(&self, time: SystemTime) -> Result<(), TlsError> {
        let file = &self.files.cert;
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let time = UnixTime::since_unix_epoch(since.unwrap_or_default());
        for cert in certs(file)? {
            // Dates are looked at first. Who has signed it is the clients' to
            // judge: here there is nobody to trust.
            let checked = EndEntityCert::try_from(&cert).and_then(|cert| {
                let usage = KeyUsage::server_auth();
                cert.verify_for_usage(ALL_VERIFICATION_ALGS, &[], &[], time, usage, None, None)
                    .map(drop)
            });
            match checked {
                Err(webpki::Error::CertExpired { not_after, .. }) => {
                    let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
                    return Err(fail(file, format!("expired {days} days ago")));
                }
                Err(webpki::Error::CertNotValidYet { .. }) => {
                    return Err(fail(file, "not valid yet".into()));
                }
                Err(error @ webpki::Error::BadDer) => return Err(fail(file, error.to_string())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The handshake of one connection.
    pub fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> impl Future<Output = io::Result<TlsStream<S>>> + use<S> {
        let config = Arc::clone(&*self.config.get());
        TlsAcceptor::from(config).accept(stream)
    }
}

fn fail(file: &Path, why: String) -> TlsError {
    let file = file.to_owned();
    TlsError { file, why }
}

fn certs(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| fail(file, error.to_string()))?;
    if Vec::is_empty(&certs) {
        return Err(fail(file, "no certificate in it".into()));
    }
    Ok(certs)
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let chain = certs(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| fail(&files.key, "no private key in it that can be read".into()))?;
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(&files.cert, error.to_string()))?;
    let config = match &files.client_ca {
        None => config.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for cert in certs(file)? {
                roots
                    .add(cert)
                    .map_err(|error| fail(file, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(|error| fail(file, error.to_string()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config
        .with_single_cert(chain, key)
        .map_err(|error| fail(&files.cert, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}
