//! Users and their passwords. A product keeps them in its database.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use argon2::{
    Argon2,
    password_hash::{Error, PasswordHasher as _, PasswordVerifier as _},
};
use tokio::{sync::RwLock, task::spawn_blocking};

/// Argon2 hashes by user name.
#[derive(Clone, Default)]
pub struct Users(Arc<RwLock<HashMap<String, String>>>);

/// The password could not be hashed, such as for lack of memory.
#[derive(Debug, thiserror::Error)]
#[error("the password could not be hashed")]
pub struct HashError;

impl Users {
    /// Adds a user, and returns `false` if the name is taken.
    pub async fn add(&self, name: &str, password: &str) -> Result<bool, HashError> {
        let hash = hash(password).await?;
        let mut users = self.0.write().await;
        if users.contains_key(name) {
            return Ok(false);
        }
        users.insert(name.to_owned(), hash);
        Ok(true)
    }

    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), HashError> {
        let hash = hash(password).await?;
        let mut users = self.0.write().await;
        users.insert(name.to_owned(), hash);
        Ok(())
    }

    /// Returns `true` if the user exists and has this password.
    ///
    /// An unknown name takes as long as a wrong password, so that the time does not tell which names exist. A product
    /// also limits how often a name and an address may try.
    pub async fn verify(&self, name: &str, password: &str) -> Result<bool, HashError> {
        static NOBODY: LazyLock<Result<String, Error>> = LazyLock::new(|| hash_now("nobody"));

        let found = self.0.read().await.get(name).cloned();
        let password = password.to_owned();
        let verified = spawn_blocking(move || {
            let known = found.is_some();
            let hash = found.or_else(|| NOBODY.as_ref().ok().cloned()).ok_or(HashError)?;
            Ok(Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok()
                && known)
        });
        verified.await.map_err(|_| HashError)?
    }
}

/// Hashing takes some 20 milliseconds, in which a thread of the runtime should not be blocked.
async fn hash(password: &str) -> Result<String, HashError> {
    let password = password.to_owned();
    let hash = spawn_blocking(move || hash_now(&password)).await;
    hash.map_err(|_| HashError)?.map_err(|_| HashError)
}

fn hash_now(password: &str) -> Result<String, Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}
