//! Users and their passwords. A product keeps them in its database.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use argon2::{
    Argon2,
    password_hash::{Error, PasswordHasher as _, PasswordVerifier as _},
};
use tokio::{
    sync::{RwLock, Semaphore},
    task::{JoinError, spawn_blocking},
};

/// How many passwords are hashed at once. A hash takes 19 MiB and a core, so without a bound some hundred sign-ins at
/// once would take all of the memory.
static HASHING: Semaphore = Semaphore::const_new(4);

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
        let verified = hashing(move || {
            // Asked for first, since the first call makes this hash.
            let nobody = NOBODY.as_ref().map_err(|_| HashError)?;
            let hash = found.as_ref().unwrap_or(nobody);
            let verified = Argon2::default().verify_password(password.as_bytes(), hash.as_str());
            Ok(verified.is_ok() && found.is_some())
        });
        verified.await.map_err(|_| HashError)?
    }
}

/// Hashing takes some 20 milliseconds, in which a thread of the runtime should not be blocked.
///
/// The turn goes with the work, which goes on if the request is dropped.
async fn hashing<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, JoinError> {
    let turn = HASHING.acquire().await;
    spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
}

async fn hash(password: &str) -> Result<String, HashError> {
    let password = password.to_owned();
    let hash = hashing(move || hash_now(&password)).await;
    hash.map_err(|_| HashError)?.map_err(|_| HashError)
}

fn hash_now(password: &str) -> Result<String, Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}
