//! Stock of kits: the row holds what there is, and each movement is written with it.

use crate::{
    domain::stock::Movement,
    ids::{GrantId, MovementId, ResourceId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// The most that there may be of a kit.
const MAX_ON_HAND: i64 = 1_000_000_000_000;

struct MovementRow {
    stock_movement_id: Uuid,
    resource_id: Uuid,
    quantity: i64,
    on_hand_after: i64,
    grant_id: Option<Uuid>,
    reference: String,
    actor: String,
    create_time: DateTime<Utc>,
}

impl From<MovementRow> for Movement {
    fn from(row: MovementRow) -> Self {
        Self {
            id: MovementId(row.stock_movement_id),
            resource: ResourceId(row.resource_id),
            quantity: row.quantity,
            on_hand_after: row.on_hand_after,
            grant: row.grant_id.map(GrantId),
            reference: row.reference,
            actor: row.actor,
            create_time: row.create_time,
        }
    }
}

/// What moves a stock.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    pub grant: Option<GrantId>,
    pub reference: &'a str,
    pub actor: &'a str,
}

/// Adds to the stock; None when there would be too many.
pub async fn put(
    conn: &mut PgConnection,
    resource: ResourceId,
    quantity: i64,
    cause: Cause<'_>,
) -> Result<Option<Movement>, sqlx::Error> {
    let on_hand = sqlx::query_scalar!(
        "INSERT INTO stock AS s (resource_id, on_hand) VALUES ($1, $2)
         ON CONFLICT (resource_id) DO UPDATE SET on_hand = s.on_hand + excluded.on_hand
         WHERE s.on_hand + excluded.on_hand <= $3
         RETURNING on_hand",
        resource.0,
        quantity,
        MAX_ON_HAND,
    )
    .fetch_optional(&mut *conn)
    .await?;
    match on_hand {
        None => Ok(None),
        Some(on_hand) => moved(conn, resource, quantity, on_hand, cause).await.map(Some),
    }
}

/// Takes from the stock; None when there is not so much. Whoever waits for the row decides upon what the one before left.
pub async fn take(
    conn: &mut PgConnection,
    resource: ResourceId,
    quantity: i64,
    cause: Cause<'_>,
) -> Result<Option<Movement>, sqlx::Error> {
    let on_hand = sqlx::query_scalar!(
        "UPDATE stock SET on_hand = on_hand - $2 WHERE resource_id = $1 AND on_hand >= $2 RETURNING on_hand",
        resource.0,
        quantity,
    )
    .fetch_optional(&mut *conn)
    .await?;
    match on_hand {
        None => Ok(None),
        Some(on_hand) => moved(conn, resource, -quantity, on_hand, cause).await.map(Some),
    }
}

async fn moved(
    conn: &mut PgConnection,
    resource: ResourceId,
    quantity: i64,
    on_hand: i64,
    cause: Cause<'_>,
) -> Result<Movement, sqlx::Error> {
    let row = sqlx::query_as!(
        MovementRow,
        "INSERT INTO stock_movement (stock_movement_id, resource_id, quantity, on_hand_after, grant_id, reference, actor, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, koc_now())
         RETURNING stock_movement_id, resource_id, quantity, on_hand_after, grant_id, reference, actor, create_time",
        MovementId::new().0,
        resource.0,
        quantity,
        on_hand,
        cause.grant.map(|grant| grant.0),
        cause.reference,
        cause.actor,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.into())
}

/// What there is.
pub async fn on_hand(conn: &mut PgConnection, resource: ResourceId) -> Result<i64, sqlx::Error> {
    let found = sqlx::query_scalar!("SELECT on_hand FROM stock WHERE resource_id = $1", resource.0).fetch_optional(conn).await?;
    Ok(found.unwrap_or(0))
}

/// Movements of a stock by id, after one.
pub async fn list(
    conn: &mut PgConnection,
    resource: ResourceId,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Movement>, sqlx::Error> {
    let rows = sqlx::query_as!(
        MovementRow,
        "SELECT stock_movement_id, resource_id, quantity, on_hand_after, grant_id, reference, actor, create_time
         FROM stock_movement
         WHERE resource_id = $1 AND ($2::uuid IS NULL OR stock_movement_id > $2)
         ORDER BY stock_movement_id
         LIMIT $3",
        resource.0,
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Movement::from).collect())
}
