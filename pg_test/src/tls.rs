//! Certificates made for one test, and where they go.
use crate::home::Home;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// What makes a server use the files that [`Identity::write_into`] writes.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("ssl", "on"),
    ("ssl_cert_file", "tls.crt"),
    ("ssl_key_file", "tls.key"),
    ("ssl_ca_file", "tls-ca.crt"),
];

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key and its authority's certificate, all PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
    pub authority: String,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = named("pg_nodes test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority {
            issuer: CertifiedIssuer::self_signed(params, new_key()).expect("a valid certificate"),
        }
    }

    /// The authority's own certificate, for `sslrootcert`.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a server of that DNS name.
    pub fn server(&self, host_name: &str) -> Identity {
        let params = CertificateParams::new(vec![host_name.to_owned()]).expect("a DNS name");
        self.sign(params)
    }

    /// For a server of that DNS name, and no longer valid.
    pub fn expired_server(&self, host_name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![host_name.to_owned()]).expect("a DNS name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    /// For a client: `cert` authentication wants the role's name as common name.
    pub fn client(&self, role: &str) -> Identity {
        self.sign(named(role))
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer);
        Identity {
            certificate: certificate.expect("a valid certificate").pem(),
            key: key.serialize_pem(),
            authority: self.pem(),
        }
    }
}

impl Identity {
    pub(crate) fn write_into(&self, home: &Home) {
        home.write("tls.crt", &self.certificate);
        home.write("tls.key", &self.key);
        home.write("tls-ca.crt", &self.authority);
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}
