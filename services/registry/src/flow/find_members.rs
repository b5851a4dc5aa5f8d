//! Reads of members by id, many in one query.

use crate::{domain::member::Member, error::Error, store};
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    lane::Find,
};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Finds members by programme and id.
pub struct ById;

impl Find for ById {
    type Id = (ProgrammeId, MemberId);
    type Found = Member;
    type Error = Error;
    const NAME: &'static str = "find members";

    async fn find(conn: &mut PgConnection, ids: &[Self::Id]) -> Result<HashMap<Self::Id, Member>, Error> {
        let mut by_programme: BTreeMap<ProgrammeId, Vec<Uuid>> = BTreeMap::new();
        for (programme, member) in ids {
            by_programme.entry(*programme).or_default().push(member.0);
        }
        let mut found = HashMap::with_capacity(ids.len());
        for (programme, ids) in by_programme {
            let members = store::member::get_all(conn, programme, &ids).await?;
            found.extend(members.into_iter().map(|(id, member)| ((programme, id), member)));
        }
        Ok(found)
    }
}
