//! How members stand: what readers of the feed keep of them.

use crate::domain::{
    consent::{self, Consent, Purpose},
    member::State,
    merge::MergeId,
    standing::{LastMerge, Standing},
};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Members that do not stand as new ones do, by programme and member: after one, and of no programme after `last`.
pub async fn list(conn: &mut PgConnection, after: (Uuid, Uuid), last: Uuid, limit: i64) -> Result<Vec<Standing>, sqlx::Error> {
    // The best of each index, then of both.
    let rows = sqlx::query!(
        r#"SELECT k.programme_id AS "programme_id!", k.member_id AS "member_id!", m.state AS "state?",
                  m.consents AS "consents?: Json<Vec<Consent>>", m.version AS "version?",
                  g.merge_id AS "merge_id?", g.winner_id AS "winner_id?", g.undone AS "undone?"
           FROM (
               (SELECT programme_id, member_id
                FROM member
                WHERE (state <> 'ACTIVE' OR consents @> '[{"granted": false}]')
                  AND (programme_id, member_id) > ($1, $2) AND programme_id <= $3
                ORDER BY programme_id, member_id
                LIMIT $4)
               UNION
               (SELECT DISTINCT programme_id, loser_id
                FROM member_merge
                WHERE (programme_id, loser_id) > ($1, $2) AND programme_id <= $3
                ORDER BY programme_id, loser_id
                LIMIT $4)
               ORDER BY 1, 2
               LIMIT $4
           ) AS k
           LEFT JOIN member m ON m.programme_id = k.programme_id AND m.member_id = k.member_id
           LEFT JOIN LATERAL (
               SELECT g.merge_id, g.winner_id,
                      EXISTS (SELECT FROM member_unmerge u WHERE u.programme_id = g.programme_id AND u.merge_id = g.merge_id) AS undone
               FROM member_merge g
               WHERE g.programme_id = k.programme_id AND g.loser_id = k.member_id
               ORDER BY g.merge_id DESC
               LIMIT 1
           ) AS g ON true
           ORDER BY 1, 2"#,
        after.0,
        after.1,
        last,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let consents = row.consents.map(|consents| consents.0).unwrap_or_default();
            let withdrawn = Purpose::ALL.iter().copied().filter(|purpose| consent::withdrawn(&consents, *purpose));
            let last_merge = match (row.merge_id, row.winner_id, row.undone) {
                (Some(merge), Some(winner), Some(undone)) => {
                    Some(LastMerge { merge: MergeId(merge), winner: MemberId(winner), undone })
                }
                _ => None,
            };
            Standing {
                programme: ProgrammeId(row.programme_id),
                member: MemberId(row.member_id),
                suspended: row.state.is_some_and(|state| state == State::Suspended.name()),
                withdrawn: withdrawn.collect(),
                version: row.version.unwrap_or_default(),
                last_merge,
            }
        })
        .collect())
}
