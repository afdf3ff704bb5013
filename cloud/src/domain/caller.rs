//! Who makes a call.

use ring::hmac;

use super::policy::Policy;
use crate::store::Store;

/// An access key in use, with what its requests are checked against.
#[derive(Clone, Debug)]
pub struct Caller {
    pub uid: i64,
    /// Empty for the account itself.
    pub user: String,
    pub key_id: String,
    /// What the requests are signed with.
    pub keys: SigningKeys,
    pub active: bool,
    /// Requests with this time stamp (milliseconds since 1970) and earlier ones are refused.
    pub nonce_floor: i64,
    /// The policies of a user; an account may do everything with its own resources.
    pub policies: Vec<Policy>,
}

impl Caller {
    /// The account itself where no request is signed: what somebody with the database does in its name. No signature is
    /// ever checked against its keys.
    pub fn account(uid: i64) -> Caller {
        Caller {
            uid,
            user: String::new(),
            key_id: String::new(),
            keys: SigningKeys::new(""),
            active: true,
            nonce_floor: 0,
            policies: Vec::new(),
        }
    }

    /// The caller with this access key.
    ///
    /// # Errors
    /// The database fails, or the secret cannot be opened with this key file.
    pub async fn load(store: &Store, key_id: &str) -> anyhow::Result<Option<Caller>> {
        let found = store.access_key(key_id).await?;
        Ok(found.map(|key| Caller {
            uid: key.uid,
            user: key.user,
            key_id: key_id.to_owned(),
            keys: SigningKeys::new(&key.secret),
            active: key.active,
            nonce_floor: key.nonce_floor,
            policies: key.policies.iter().map(Policy::new).collect(),
        }))
    }
}

/// An access key's secret as both signatures use it.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    /// For signatures of version 1.0.
    pub v1: hmac::Key,
    /// For ACS3-HMAC-SHA256.
    pub acs3: hmac::Key,
}

impl SigningKeys {
    pub fn new(secret: &str) -> SigningKeys {
        SigningKeys {
            v1: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, format!("{secret}&").as_bytes()),
            acs3: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        }
    }
}
