//! A project's certificates: its own authority, the server's, one for each user, and the list of
//! those that are no longer good.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// How long certificates and the list are good: nobody renews them before an instance is replaced.
const LIFE: Duration = Duration::days(3650);
/// Clocks of instances that have just been started may be behind.
const BEFORE: Duration = Duration::days(1);

/// Who signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
}

/// A certificate and its key, as PEM, and the number it is revoked by, in hexadecimal.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) serial: String,
}

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Server,
    User,
}

impl Authority {
    /// A new one for a project.
    pub(super) fn new(project: &str) -> Result<Self> {
        Self::with_key(project, KeyPair::generate()?)
    }

    /// The project's, whose key this is.
    pub(super) fn of(project: &str, key: &str) -> Result<Self> {
        Self::with_key(project, KeyPair::from_pem(key).context("the authority's key is none")?)
    }

    fn with_key(project: &str, key: KeyPair) -> Result<Self> {
        let mut params = named(&format!("{project} VPN"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: Issuer::new(params.clone(), key), params })
    }

    /// Its own certificate and key.
    pub(super) fn own(&self) -> Result<(String, String)> {
        let certificate = self.params.self_signed(self.issuer.key())?;
        Ok((certificate.pem(), self.issuer.key().serialize_pem()))
    }

    /// A certificate for the server or a user.
    pub(super) fn sign(&self, name: &str, role: Role) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let mut params = named(name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::User => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        // The key is new, so the digest of its public half is nobody else's number.
        let mut serial = params.key_identifier(&key);
        serial.truncate(16);
        // A number must not be negative (RFC 5280 §4.1.2.2).
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Signed { certificate, key: key.serialize_pem(), serial })
    }

    /// The list of certificates that are no longer good.
    pub(super) fn revoke(&self, serials: &[String]) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &String| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(bytes(serial)?),
                revocation_time: now,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: now - BEFORE,
            next_update: now + LIFE,
            crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn named(name: &str) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (now - BEFORE, now + LIFE);
    params
}

fn bytes(serial: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| serial.get(at..at + 2).unwrap_or_default();
    (0..serial.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits(at), 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("'{serial}' is no serial number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_read_back_signs_as_the_one_that_was_made() {
        let made = Authority::new("tenant1").unwrap();
        let (certificate, key) = made.own().unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        let read = Authority::of("tenant1", &key).unwrap();
        assert_eq!(read.own().unwrap().1, key);
        let one = made.sign("alice", Role::User).unwrap();
        let two = read.sign("alice", Role::User).unwrap();
        assert_ne!(one.serial, two.serial);
        assert_eq!(one.serial.len(), 32);
        assert!(read.revoke(&[one.serial, two.serial]).unwrap().contains("X509 CRL"));
        assert!(read.revoke(&["zz".into()]).is_err());
        assert!(Authority::of("tenant1", "nonsense").is_err());
    }
}
