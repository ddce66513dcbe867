//! Who the server is, as strictly as `sslmode` asks, by libpq's rules
//! (src/interfaces/libpq/fe-secure-openssl.c).

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
    SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};

use super::certificate;
use crate::conninfo::{Host, RootCert, SslMode, SslNegotiation, TlsSettings};

/// Everything a handshake needs to know in advance. Fails with one line of fact: which file, what is
/// wrong with it.
pub(crate) fn config(settings: &TlsSettings, host: &Host) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match (settings.only_tls12, settings.only_tls13) {
        (true, _) => &[&rustls::version::TLS12],
        (_, true) => &[&rustls::version::TLS13],
        _ => rustls::ALL_VERSIONS,
    };
    let roots = roots(settings)?;
    if settings.mode == SslMode::VerifyFull && host.name.is_empty() {
        return Err("sslmode verify-full needs a host name, not only hostaddr".to_owned());
    }
    let trust = match roots {
        None => Trust::Anyone,
        Some(roots) => Trust::Roots {
            verifier: chain_verifier(settings, &roots, &provider)?,
            pinned: roots.certificates,
            store: roots.store,
            check_name: settings.mode == SslMode::VerifyFull,
        },
    };
    let verifier = Verifier {
        trust,
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match client_certificate(settings)? {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client certificate cannot be used: {error}"))?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = settings.sni;
    if settings.negotiation == SslNegotiation::Direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// The name to check and to send as SNI. A name that cannot be one in a certificate (a socket's
/// folder never gets here) is only an error where it would be checked.
pub(crate) fn server_name(
    settings: &TlsSettings,
    host: &Host,
) -> Result<ServerName<'static>, String> {
    if let Ok(name) = ServerName::try_from(host.name.clone()) {
        return Ok(name);
    }
    if settings.mode == SslMode::VerifyFull {
        return Err("the host is not a name that a certificate could hold".to_owned());
    }
    let address = host.address.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    Ok(ServerName::IpAddress(address.into()))
}

struct Roots {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
}

/// libpq checks the chain whenever there is a root file, whatever the mode; without one, only the
/// `verify-` modes fail.
fn roots(settings: &TlsSettings) -> Result<Option<Roots>, String> {
    let must_verify = settings.mode >= SslMode::VerifyCa;
    match &settings.root_cert {
        RootCert::System => {
            let found = rustls_native_certs::load_native_certs();
            let mut store = RootCertStore::empty();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err("the system's certificate store is empty".to_owned());
            }
            Ok(Some(Roots {
                store,
                certificates: Vec::new(),
            }))
        }
        RootCert::File(path) => match certificates(path) {
            Ok(certificates) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(certificates.iter().cloned());
                Ok(Some(Roots {
                    store,
                    certificates,
                }))
            }
            Err(PemError::Absent) if must_verify => Err(format!(
                "root certificate file {} does not exist",
                path.display()
            )),
            Err(PemError::Absent) => Ok(None),
            Err(PemError::Unusable(what)) => {
                Err(format!("root certificate file {}: {what}", path.display()))
            }
        },
        RootCert::Nowhere if must_verify => Err("no root certificate file was given".to_owned()),
        RootCert::Nowhere => Ok(None),
    }
}

fn client_certificate(
    settings: &TlsSettings,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
    let Some(path) = &settings.cert else {
        return Ok(None);
    };
    let chain = match certificates(path) {
        Ok(chain) => chain,
        // Like libpq: go on without. If the server wants one, it says so.
        Err(PemError::Absent) => return Ok(None),
        Err(PemError::Unusable(what)) => {
            return Err(format!(
                "client certificate file {}: {what}",
                path.display()
            ));
        }
    };
    let Some(key_path) = &settings.key else {
        return Err("a client certificate was given without its key".to_owned());
    };
    refuse_open_key(key_path)?;
    if fs::read(key_path).is_ok_and(|pem| contains(&pem, b"ENCRYPTED")) {
        return Err(format!(
            "private key file {} is encrypted, which is not supported",
            key_path.display()
        ));
    }
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| format!("private key file {}: {error}", key_path.display()))?;
    Ok(Some((chain, key)))
}

/// libpq's rule: a key is 0600, or 0640 when it belongs to root.
fn refuse_open_key(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    let facts = fs::metadata(path)
        .map_err(|error| format!("private key file {}: {error}", path.display()))?;
    let allowed = if facts.uid() == 0 { 0o640 } else { 0o600 };
    let mode = facts.mode() & 0o777;
    // The execute bits are of no consequence and libpq ignores the owner's.
    if mode & !(allowed | 0o100) != 0 {
        return Err(format!(
            "private key file {} has permissions {mode:04o}, wider than {allowed:04o}",
            path.display()
        ));
    }
    Ok(())
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

enum PemError {
    Absent,
    Unusable(String),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PemError::Absent,
        _ => PemError::Unusable(error.to_string()),
    })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(PemError::Unusable("holds no certificate".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(PemError::Unusable(error.to_string())),
    }
}

/// webpki's own verifier is only needed for revocation lists, which the free functions do not take.
fn chain_verifier(
    settings: &TlsSettings,
    roots: &Roots,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<rustls::client::WebPkiServerVerifier>>, String> {
    let Some(path) = &settings.crl else {
        return Ok(None);
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("revocation list {}: {error}", path.display())),
    };
    let unusable = |what: String| format!("revocation list {}: {what}", path.display());
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots.store.clone()),
        provider.clone(),
    )
    .with_crls(lists)
    .allow_unknown_revocation_status()
    .build()
    .map(Some)
    .map_err(|error| unusable(error.to_string()))
}

#[derive(Debug)]
enum Trust {
    /// `require` and weaker, without a root file: encrypted, but to whom?
    Anyone,
    Roots {
        store: RootCertStore,
        /// The root file's certificates: one that is the server's own is trusted as such, which
        /// webpki does not do and self-signed set-ups depend on.
        pinned: Vec<CertificateDer<'static>>,
        verifier: Option<Arc<rustls::client::WebPkiServerVerifier>>,
        check_name: bool,
    },
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Trust::Roots {
            store,
            pinned,
            verifier,
            check_name,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        if pinned
            .iter()
            .any(|root| root.as_ref() == end_entity.as_ref())
        {
            let valid = certificate::parse(end_entity).is_some_and(|c| c.valid_at(now.as_secs()));
            if !valid {
                return Err(CertificateError::Expired.into());
            }
        } else {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                store,
                intermediates,
                now,
                algorithms,
            )?;
            if let Some(verifier) = verifier {
                // The name is ours to judge, by libpq's rules.
                match verifier.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                ) {
                    Err(TlsError::InvalidCertificate(
                        CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. },
                    ))
                    | Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if *check_name {
            self::check_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match certificate::parse(cert) {
            // webpki cannot read version 1, which older OpenSSL makes by default. The key is all that
            // matters here.
            Some(fields) if fields.is_version_1 => {
                let key = SubjectPublicKeyInfoDer::from(fields.public_key);
                verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
            }
            _ => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn check_name(end_entity: &CertificateDer<'_>, wanted: &ServerName<'_>) -> Result<(), TlsError> {
    let fields = certificate::parse(end_entity);
    if let Some(common) = fields.as_ref().and_then(certificate::Fields::common_name) {
        return if names_match(&common, &wanted.to_str()) {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        };
    }
    verify_server_name(&ParsedCertificate::try_from(end_entity)?, wanted)
}

/// Case does not count, and `*.` stands for exactly one label.
fn names_match(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(pattern), Some((label, rest))) => {
            !label.is_empty()
                && pattern.contains('.')
                && pattern.eq_ignore_ascii_case(rest)
                && name.parse::<std::net::IpAddr>().is_err()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::names_match;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(names_match("DB.example.com", "db.example.com"));
        assert!(names_match("*.example.com", "db.example.com"));
        assert!(!names_match("*.example.com", "a.b.example.com"));
        assert!(!names_match("*.example.com", "example.com"));
        assert!(!names_match("*.com", "example.com"));
        assert!(!names_match("*.0.0.1", "127.0.0.1"));
    }
}
