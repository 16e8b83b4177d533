use super::{DecodeError, codes::impossible};
use crate::model;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mesh {
    #[prost(string, repeated, tag = "1")]
    zones: Vec<String>,
    #[prost(string, tag = "2")]
    cluster_domain: String,
    #[prost(bool, tag = "3")]
    fail_to_plain: bool,
    #[prost(bool, tag = "4")]
    bypass: bool,
    #[prost(bool, tag = "5")]
    access_control: bool,
    #[prost(string, repeated, tag = "6")]
    controllers: Vec<String>,
    #[prost(bool, tag = "7")]
    access_dry_run: bool,
    #[prost(message, repeated, tag = "8")]
    access_sources: Vec<AccessSource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AccessSource {
    #[prost(string, tag = "1")]
    range: String,
    #[prost(string, tag = "2")]
    account: String,
}

impl From<&model::AccessSource> for AccessSource {
    fn from(it: &model::AccessSource) -> Self {
        Self { range: it.range.to_string(), account: it.account.to_string() }
    }
}

impl TryFrom<AccessSource> for model::AccessSource {
    type Error = DecodeError;

    fn try_from(it: AccessSource) -> Result<Self, DecodeError> {
        Ok(Self {
            range: it.range.parse().map_err(|_| impossible("range of addresses"))?,
            account: it.account.parse().map_err(|_| impossible("ServiceAccount"))?,
        })
    }
}

impl From<&model::Mesh> for Mesh {
    fn from(mesh: &model::Mesh) -> Self {
        Self {
            zones: mesh.zones.iter().map(ToString::to_string).collect(),
            cluster_domain: mesh.cluster_domain.clone(),
            fail_to_plain: mesh.fail_to_plain,
            bypass: mesh.bypass,
            access_control: mesh.access_control.denies(),
            controllers: mesh.controllers.iter().map(ToString::to_string).collect(),
            access_dry_run: mesh.access_control == model::AccessControl::DryRun,
            access_sources: mesh.access_sources.iter().map(AccessSource::from).collect(),
        }
    }
}

impl TryFrom<Mesh> for model::Mesh {
    type Error = DecodeError;

    fn try_from(mesh: Mesh) -> Result<Self, DecodeError> {
        Ok(Self {
            zones: mesh
                .zones
                .iter()
                .map(|zone| zone.parse().map_err(|_| impossible("zone")))
                .collect::<Result<_, _>>()?,
            cluster_domain: mesh.cluster_domain,
            fail_to_plain: mesh.fail_to_plain,
            bypass: mesh.bypass,
            access_control: match (mesh.access_control, mesh.access_dry_run) {
                (true, _) => model::AccessControl::On,
                (false, true) => model::AccessControl::DryRun,
                (false, false) => model::AccessControl::Off,
            },
            access_sources: mesh.access_sources.into_iter().map(TryFrom::try_from).collect::<Result<_, _>>()?,
            controllers: mesh
                .controllers
                .iter()
                .map(|address| address.parse().map_err(|_| impossible("controller address")))
                .collect::<Result<_, _>>()?,
        })
    }
}
