//! What an error of the API server means for whoever asked. The one place where its codes are read.

/// Why the API server did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The object, its namespace, or its kind is not there.
    Missing,
    /// It is there already, or somebody else changed it since it was read.
    Conflict,
    /// The right is missing, or a quota is used up.
    Forbidden,
    /// It does not know who asks: another token may do.
    Stranger,
    /// What was seen of a watch or list is forgotten, or is newer than what the server has.
    Expired,
    /// It would refuse the same again.
    Invalid,
    /// It failed with this request, as where a webhook does.
    Failed,
    /// It has too much to do, is not there, or did not answer: the same may do later.
    Later,
}

impl ApiError {
    /// What `error` means.
    pub fn of(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Later };
        if status.message.contains("Too large resource version") {
            return Self::Expired;
        }
        match status.code {
            401 => Self::Stranger,
            403 => Self::Forbidden,
            404 => Self::Missing,
            409 => Self::Conflict,
            410 => Self::Expired,
            429 => Self::Later,
            400..=499 => Self::Invalid,
            500 => Self::Failed,
            _ => Self::Later,
        }
    }

    /// Whether `error` means this.
    pub fn is(self, error: &kube::Error) -> bool {
        Self::of(error) == self
    }
}

/// What the API server says of it; where it said nothing, what went wrong on the way.
pub(crate) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => super::chain(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn codes() {
        for (code, message, want) in [
            (401, "", ApiError::Stranger),
            (403, "exceeded quota", ApiError::Forbidden),
            (404, "", ApiError::Missing),
            (409, "", ApiError::Conflict),
            (410, "", ApiError::Expired),
            (504, "Too large resource version: 9, current: 4", ApiError::Expired),
            (422, "", ApiError::Invalid),
            (429, "", ApiError::Later),
            (500, "failed calling webhook", ApiError::Failed),
            (503, "", ApiError::Later),
        ] {
            let status = Status { code, message: message.into(), ..Status::default() };
            assert_eq!(ApiError::of(&kube::Error::Api(Box::new(status))), want, "{code} {message}");
        }
        assert_eq!(ApiError::of(&kube::Error::LinesCodecMaxLineLengthExceeded), ApiError::Later, "no answer");
    }
}
