//! Leaderboards: points by board, and the counts that ranks are read from.

use crate::domain::leaderboard::{bucket, bucket_end};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A member's points on a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    pub board: String,
    pub member: MemberId,
    pub points: i64,
    pub listed: bool,
}

/// What members have on boards; the pairs that have nothing yet are left out. The members' accounts are locked.
pub async fn points(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    boards: &[String],
    members: &[Uuid],
) -> Result<HashMap<(String, MemberId), i64>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT board, member_id, points
         FROM leaderboard_score
         WHERE programme_id = $1 AND board = ANY ($2) AND member_id = ANY ($3)",
        programme.0,
        boards,
        members,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.board, MemberId(row.member_id)), row.points)).collect())
}

/// All that a member has. The member's account is locked.
pub async fn of_member(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Vec<Score>, sqlx::Error> {
    // The boards that there can be are few: they are found by skipping from one to the next.
    let rows = sqlx::query!(
        r#"WITH RECURSIVE boards AS (
               SELECT (SELECT min(board) FROM leaderboard_score WHERE programme_id = $1) AS board
               UNION ALL
               SELECT (SELECT min(s.board) FROM leaderboard_score s WHERE s.programme_id = $1 AND s.board > b.board)
               FROM boards b
               WHERE b.board IS NOT NULL
           )
           SELECT s.board, s.points, s.listed
           FROM boards b
           JOIN leaderboard_score s ON s.programme_id = $1 AND s.board = b.board AND s.member_id = $2"#,
        programme.0,
        member.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Score { board: row.board, member, points: row.points, listed: row.listed }).collect())
}

/// Writes what members have. Their accounts are locked.
pub async fn put(conn: &mut PgConnection, programme: ProgrammeId, scores: &[Score]) -> Result<(), sqlx::Error> {
    let boards: Vec<&str> = scores.iter().map(|score| score.board.as_str()).collect();
    let members: Vec<Uuid> = scores.iter().map(|score| score.member.0).collect();
    let points: Vec<i64> = scores.iter().map(|score| score.points).collect();
    let listed: Vec<bool> = scores.iter().map(|score| score.listed).collect();
    sqlx::query!(
        "INSERT INTO leaderboard_score (programme_id, board, member_id, points, listed)
         SELECT $1, n.*
         FROM UNNEST($2::text[], $3::uuid[], $4::bigint[], $5::boolean[]) AS n
         ON CONFLICT ON CONSTRAINT leaderboard_score_pkey DO UPDATE
         SET points = excluded.points, listed = excluded.listed",
        programme.0,
        &boards as &[&str],
        &members,
        &points,
        &listed,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says how many members came into, or went from, buckets of boards.
pub async fn insert_shifts(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    shifts: &BTreeMap<(String, i32), i64>,
) -> Result<(), sqlx::Error> {
    if shifts.is_empty() {
        return Ok(());
    }
    let boards: Vec<&str> = shifts.keys().map(|(board, _)| board.as_str()).collect();
    let buckets: Vec<i32> = shifts.keys().map(|(_, bucket)| *bucket).collect();
    let members: Vec<i64> = shifts.values().copied().collect();
    sqlx::query!(
        "INSERT INTO leaderboard_shift (programme_id, board, bucket, members)
         SELECT $1, n.*
         FROM UNNEST($2::text[], $3::integer[], $4::bigint[]) AS n",
        programme.0,
        &boards as &[&str],
        &buckets,
        &members,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Shows a member on all boards, or on none. The member's account is locked.
pub async fn set_listed(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    listed: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE points_account
         SET listed = $3
         WHERE programme_id = $1 AND member_id = $2",
        programme.0,
        member.0,
        listed,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The rank of so many points: one more than the members with more. What lies above the bucket is summed up, what lies in it is counted.
pub async fn rank(conn: &mut PgConnection, programme: ProgrammeId, board: &str, points: i64) -> Result<i64, sqlx::Error> {
    let rank = sqlx::query_scalar!(
        r#"SELECT 1
               + (SELECT COALESCE(sum(members), 0)
                  FROM leaderboard_bucket
                  WHERE programme_id = $1 AND board = $2 AND bucket > $3)::bigint
               + (SELECT COALESCE(sum(members), 0)
                  FROM leaderboard_shift
                  WHERE programme_id = $1 AND board = $2 AND bucket > $3)::bigint
               + (SELECT count(*)
                  FROM leaderboard_score
                  WHERE programme_id = $1 AND board = $2 AND listed AND points > 0 AND points > $4 AND points <= $5)
               AS "rank!""#,
        programme.0,
        board,
        bucket(points).unwrap_or(0),
        points,
        bucket_end(points),
    );
    rank.fetch_one(conn).await
}

/// How many members a board ranks.
pub async fn ranked_count(conn: &mut PgConnection, programme: ProgrammeId, board: &str) -> Result<i64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT (SELECT COALESCE(sum(members), 0) FROM leaderboard_bucket WHERE programme_id = $1 AND board = $2)::bigint
                + (SELECT COALESCE(sum(members), 0) FROM leaderboard_shift WHERE programme_id = $1 AND board = $2)::bigint
                AS "count!""#,
        programme.0,
        board,
    );
    count.fetch_one(conn).await
}

/// What a member has on a board that shows it; None for nothing.
pub async fn ranked_points(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    board: &str,
    member: MemberId,
) -> Result<Option<i64>, sqlx::Error> {
    let points = sqlx::query_scalar!(
        "SELECT points
         FROM leaderboard_score
         WHERE programme_id = $1 AND board = $2 AND member_id = $3 AND listed AND points > 0",
        programme.0,
        board,
        member.0,
    );
    points.fetch_optional(conn).await
}

/// A place on a board: points and member. Places rise towards the top.
pub type Place = (i64, MemberId);

/// The place above all.
pub const TOP: Place = (i64::MAX, MemberId(Uuid::max()));

/// The places below one, from the top.
pub async fn below(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    board: &str,
    place: Place,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT points, member_id
         FROM leaderboard_score
         WHERE programme_id = $1 AND board = $2 AND listed AND points > 0 AND (points, member_id) < ($3, $4)
         ORDER BY points DESC, member_id DESC
         LIMIT $5",
        programme.0,
        board,
        place.0,
        place.1.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.points, MemberId(row.member_id))).collect())
}

/// The places above one, from the nearest.
pub async fn above(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    board: &str,
    place: Place,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT points, member_id
         FROM leaderboard_score
         WHERE programme_id = $1 AND board = $2 AND listed AND points > 0 AND (points, member_id) > ($3, $4)
         ORDER BY points, member_id
         LIMIT $5",
        programme.0,
        board,
        place.0,
        place.1.0,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.points, MemberId(row.member_id))).collect())
}

/// Makes this transaction the only one that counts; false when another does.
pub async fn count_alone(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const COUNT_LOCK: i64 = 0x6b6f_632e_7261_6e6b;
    let alone = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "alone!""#, COUNT_LOCK);
    alone.fetch_one(conn).await
}

/// Adds the first `limit` shifts to the buckets; says how many there were. A member's way into a bucket was written before its way out, and
/// shifts are taken in the order in which they were written, so no bucket falls below zero. The caller counts alone.
pub async fn add_up(conn: &mut PgConnection, limit: i64) -> Result<usize, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT shift_id, programme_id, board, bucket, members
         FROM leaderboard_shift
         ORDER BY shift_id
         LIMIT $1",
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.shift_id).collect();
    let mut sums: BTreeMap<(Uuid, String, i32), i64> = BTreeMap::new();
    for row in rows {
        *sums.entry((row.programme_id, row.board, row.bucket)).or_default() += row.members;
    }
    sums.retain(|_, members| *members != 0);
    let programmes: Vec<Uuid> = sums.keys().map(|(programme, ..)| *programme).collect();
    let boards: Vec<&str> = sums.keys().map(|(_, board, _)| board.as_str()).collect();
    let buckets: Vec<i32> = sums.keys().map(|(.., bucket)| *bucket).collect();
    let members: Vec<i64> = sums.values().copied().collect();
    sqlx::query!(
        "INSERT INTO leaderboard_bucket (programme_id, board, bucket, members)
         SELECT n.*, 0
         FROM UNNEST($1::uuid[], $2::text[], $3::integer[]) AS n
         ON CONFLICT DO NOTHING",
        &programmes,
        &boards as &[&str],
        &buckets,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "UPDATE leaderboard_bucket AS b
         SET members = b.members + n.members
         FROM UNNEST($1::uuid[], $2::text[], $3::integer[], $4::bigint[]) AS n (programme_id, board, bucket, members)
         WHERE b.programme_id = n.programme_id AND b.board = n.board AND b.bucket = n.bucket",
        &programmes,
        &boards as &[&str],
        &buckets,
        &members,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!("DELETE FROM leaderboard_shift WHERE shift_id = ANY ($1)", &ids).execute(conn).await?;
    Ok(ids.len())
}

/// Removes boards of months before `first_kept`, at most `limit` scores of them and then their counts, those not added up too; says how
/// many scores. The caller counts alone.
pub async fn purge(conn: &mut PgConnection, programme: ProgrammeId, first_kept: &str, limit: i64) -> Result<u64, sqlx::Error> {
    let scores = sqlx::query!(
        "DELETE FROM leaderboard_score
         WHERE ctid = ANY (ARRAY(
             SELECT ctid
             FROM leaderboard_score
             WHERE programme_id = $1 AND board < $2
             ORDER BY board, member_id
             LIMIT $3
         ))",
        programme.0,
        first_kept,
        limit,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    if scores == 0 {
        sqlx::query!("DELETE FROM leaderboard_shift WHERE programme_id = $1 AND board < $2", programme.0, first_kept)
            .execute(&mut *conn)
            .await?;
        sqlx::query!("DELETE FROM leaderboard_bucket WHERE programme_id = $1 AND board < $2", programme.0, first_kept)
            .execute(conn)
            .await?;
    }
    Ok(scores)
}
