//! All that the registry holds of a person, what syncs left behind too: rows that were rejected, and whom full runs have seen.

use crate::{
    error::Error,
    store::{
        self,
        member::Locked,
        rejected_row::{OfRun, RejectedRow},
    },
};
use koc_chassis::ids::ProgrammeId;
use koc_proto::{DESCRIPTORS, koc::registry::v1 as pb, rules::Rules};
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The rejected rows that tell of a person: those of its identities, and those with an address or a number that it has or had.
/// Its members are locked.
pub async fn rejected(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    person: &[Locked],
) -> Result<Vec<OfRun<RejectedRow>>, sqlx::Error> {
    let ids: Vec<Uuid> = person.iter().map(|one| one.id.0).collect();
    // The external id is the first field of a row, and so its encoding begins as one that has nothing else.
    let beginning = |external_id| pb::MemberRow { external_id, ..Default::default() }.encode_to_vec();
    let identities: Vec<(String, Vec<u8>)> = store::identity::of_members(conn, programme, &ids)
        .await?
        .into_iter()
        .map(|identity| (identity.source_system, beginning(identity.external_id)))
        .collect();
    let before = store::history::contacts(conn, programme, &ids).await?;
    let now = person.iter().map(|one| (one.record.profile.email.clone(), one.record.profile.phone.clone()));
    let contacts: BTreeSet<String> = now.chain(before).flat_map(|(email, phone)| [email, phone]).collect();
    let contacts: Vec<&str> = contacts.iter().map(String::as_str).filter(|contact| !contact.is_empty()).collect();
    let mut found = store::rejected_row::of_person(conn, programme, &identities, &contacts).await?;
    let beginnings: Vec<Vec<u8>> = identities.into_iter().map(|(_, beginning)| beginning).collect();
    found.retain(|found| is_of(&found.row.content, &beginnings, &contacts));
    Ok(found)
}

/// Whether a rejected row is of one of these identities, or has an address or a number of these as its own. That one stands somewhere in it
/// says little: another's address may end in it.
fn is_of(content: &[u8], beginnings: &[Vec<u8>], contacts: &[&str]) -> bool {
    if beginnings.iter().any(|beginning| content.starts_with(beginning)) {
        return true;
    }
    let profile = pb::MemberRow::decode(content).ok().and_then(|row| row.profile).unwrap_or_default();
    let own = [profile.email, profile.phone].map(|own| own.trim().to_lowercase());
    contacts.iter().any(|contact| own.contains(&contact.to_lowercase()))
}

/// An object with a list for each kind of thing. The person's members are locked.
pub async fn collect(conn: &mut PgConnection, programme: ProgrammeId, person: &[Locked]) -> Result<Value, Error> {
    let ids: Vec<Uuid> = person.iter().map(|one| one.id.0).collect();
    let mut held = store::export::collect(conn, programme, &ids).await?;
    let rejected = rejected(conn, programme, person).await?;
    held["rejected_row"] = rejected.into_iter().map(|found| readable(&found)).collect();
    let mut scores = Vec::new();
    for one in person {
        for score in store::leaderboard::of_member(conn, programme, one.id).await? {
            scores.push(json!({ "member_id": one.id.0, "board": score.board, "points": score.points, "listed": score.listed }));
        }
    }
    held["leaderboard_score"] = scores.into();
    Ok(held)
}

/// A rejected row as a person can read it.
fn readable(found: &OfRun<RejectedRow>) -> Value {
    let OfRun { run, row } = found;
    let content = DESCRIPTORS
        .get_message_by_name(pb::MemberRow::NAME)
        .and_then(|contract| DynamicMessage::decode(contract, row.content.as_slice()).ok())
        .and_then(|message| serde_json::to_value(message).ok());
    let violation = |v: &koc_chassis::fault::Violation| json!({ "field": v.field, "rule": v.rule, "description": v.description });
    json!({
        "sync_run_id": run.0,
        "batch_number": row.place.batch_number,
        "row_index": row.place.row_index,
        "content": content,
        "violations": row.violations.iter().map(violation).collect::<Vec<_>>(),
        "create_time": row.create_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_of_whoever_has_its_identity_its_address_or_its_number_and_of_nobody_else() {
        let row = |external_id: &str, email: &str, phone: &str| {
            let profile = pb::MemberProfile { email: email.into(), phone: phone.into(), ..Default::default() };
            pb::MemberRow { external_id: external_id.into(), profile: Some(profile), ..Default::default() }.encode_to_vec()
        };
        let beginning = pb::MemberRow { external_id: "17".into(), ..Default::default() }.encode_to_vec();
        let is_of =
            |content: Vec<u8>| is_of(&content, std::slice::from_ref(&beginning), &["li@mail.example.com", "+8613900000000"]);
        assert!(is_of(row("17", "nobody", "")));
        assert!(is_of(row("18", " Li@Mail.example.com", "12")) && is_of(row("", "", "+8613900000000")));
        for another in [
            row("177", "nobody", ""),
            row("18", "ali@mail.example.com", "12"),
            row("18", "li@mail.example.community", "+86139000000001"),
        ] {
            assert!(!is_of(another));
        }
    }
}
