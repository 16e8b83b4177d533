//! What every write asks first: whether it is too early, then whether this replica leads.

use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{ReconcileError, pace::Pace};
use crate::{api::ApiError, leader::Leadership};

/// The leader's writes.
pub(super) struct Writes<'a> {
    pub(super) pace: &'a mut Pace,
    pub(super) leadership: &'a Leadership,
}

impl Writes<'_> {
    /// Does one write.
    pub(super) async fn write<T>(&mut self, write: impl Future<Output = kube::Result<T>>) -> Result<T, ReconcileError> {
        self.pace.take(Instant::now()).map_err(ReconcileError::TooEarly)?;
        Ok(self.leadership.write(write).await??)
    }

    /// Deletes the one with this uid, and no other that was made under its name since. Gone already is as good.
    pub(super) async fn delete<K>(
        &mut self,
        api: &Api<K>,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), ReconcileError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.write(api.delete(name, &parameters)).await {
            Err(ReconcileError::Api(error))
                if matches!(ApiError::of(&error), ApiError::Missing | ApiError::Conflict) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}
