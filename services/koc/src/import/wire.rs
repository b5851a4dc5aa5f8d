//! Between the rows of a file and what the registry takes and answers.

use super::{MappedRow, Mapping, Motivation, Purpose, Reject};
use koc_chassis::clock;
use koc_proto::{google::rpc::Status as Wire, koc::registry::v1 as pb};
use tonic_types::RpcStatusExt;

pub(super) fn to_row(mapped: MappedRow) -> pb::MemberRow {
    pb::MemberRow {
        external_id: mapped.external_id,
        source_time: Some(clock::to_proto(mapped.source_time)),
        profile: Some(pb::MemberProfile {
            display_name: mapped.display_name.unwrap_or_default(),
            email: mapped.email.unwrap_or_default(),
            phone: mapped.phone.unwrap_or_default(),
            region_code: mapped.region.unwrap_or_default(),
            city: mapped.city.unwrap_or_default(),
            channels: mapped
                .channels
                .into_iter()
                .map(|c| pb::Channel { platform: c.platform, handle: c.handle, followers: c.followers })
                .collect(),
            vehicles: mapped
                .vehicles
                .into_iter()
                .map(|v| pb::Vehicle { model: v.model.unwrap_or_default(), vin: v.vin.unwrap_or_default() })
                .collect(),
            motivations: mapped.motivations.into_iter().map(|m| motivation(m).into()).collect(),
            tags: mapped.tags,
            consents: mapped
                .consents
                .into_iter()
                .map(|c| pb::Consent { purpose: purpose(c.purpose).into(), granted: c.granted })
                .collect(),
        }),
        clear_fields: Vec::new(),
        deleted: false,
    }
}

fn motivation(motivation: Motivation) -> pb::Motivation {
    match motivation {
        Motivation::Helping => pb::Motivation::Helping,
        Motivation::Mastery => pb::Motivation::Mastery,
        Motivation::Gathering => pb::Motivation::Gathering,
        Motivation::Recognition => pb::Motivation::Recognition,
        Motivation::Reward => pb::Motivation::Reward,
    }
}

fn purpose(purpose: Purpose) -> pb::ConsentPurpose {
    match purpose {
        Purpose::Participation => pb::ConsentPurpose::Participation,
        Purpose::Profiling => pb::ConsentPurpose::Profiling,
        Purpose::ContentUse => pb::ConsentPurpose::ContentUse,
        Purpose::Contact => pb::ConsentPurpose::Contact,
    }
}

/// What the registry said against a row, in the shape of the file's own rejects.
pub(super) fn reasons(line: u64, status: Option<&Wire>, mapping: &Mapping) -> Vec<Reject> {
    let Some(status) = status else { return Vec::new() };
    let whole = tonic_types::Status { code: status.code, message: status.message.clone(), details: status.details.clone() };
    let details = whole.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default();
    let reject = |column: &str, reason: &str| Reject {
        line,
        column: column.to_owned(),
        reason: reason.to_owned(),
        value_shape: String::new(),
    };
    if violations.is_empty() {
        return vec![reject("", &status.message)];
    }
    violations.iter().map(|v| reject(mapping.column_of(&v.field).unwrap_or(&v.field), &v.description)).collect()
}
