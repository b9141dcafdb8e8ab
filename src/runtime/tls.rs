use std::{fmt, future::Future, io, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

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
#[error("{}: {why}", file.display())]
pub struct TlsError {
    file: PathBuf,
    why: String,
}

/// Accepts TLS. The files are read again when they have changed, for the
/// connections from then on.
#[derive(Clone)]
pub struct Tls(Arc<Watched<Arc<ServerConfig>>>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If one can't be read, or they do not belong together.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let mut all = vec![files.cert.clone(), files.key.clone()];
        all.extend(files.client_ca.clone());
        let watched = Watched::new(all, move || load(&files).map(Arc::new))?;
        Ok(Self(Arc::new(watched)))
    }

    /// The handshake of one connection.
    pub fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> impl Future<Output = io::Result<TlsStream<S>>> + use<S> {
        let config = Arc::clone(&*self.0.get());
        TlsAcceptor::from(config).accept(stream)
    }
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let fail = |file: &PathBuf, why: String| TlsError {
        file: file.clone(),
        why,
    };
    let certs = |file: &PathBuf| -> Result<Vec<_>, TlsError> {
        let certs = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| fail(file, error.to_string()))?;
        if Vec::is_empty(&certs) {
            return Err(fail(file, "no certificate in it".into()));
        }
        Ok(certs)
    };
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
        f.debug_tuple("Tls").field(&self.0).finish()
    }
}
