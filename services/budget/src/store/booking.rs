//! Units and their calendar. That open bookings of a unit share no day is a constraint: `booking_overlap`.

use crate::{
    domain::stock::{Booking, Unit},
    ids::{GrantId, ProgrammeId, ResourceId, UnitId},
};
use chrono::NaiveDate;
use sqlx::PgConnection;
use uuid::Uuid;

struct UnitRow {
    unit_id: Uuid,
    programme_id: Uuid,
    resource_id: Uuid,
    display_name: String,
}

impl From<UnitRow> for Unit {
    fn from(row: UnitRow) -> Self {
        Self {
            id: UnitId(row.unit_id),
            programme: ProgrammeId(row.programme_id),
            resource: ResourceId(row.resource_id),
            display_name: row.display_name,
        }
    }
}

/// Keeps a new unit. A name that is taken breaks `resource_unit_name`.
pub async fn insert_unit(conn: &mut PgConnection, unit: &Unit) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO resource_unit (unit_id, programme_id, resource_id, display_name, create_time)
         VALUES ($1, $2, $3, $4, koc_now())",
        unit.id.0,
        unit.programme.0,
        unit.resource.0,
        unit.display_name,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A unit of the programme.
pub async fn find_unit(conn: &mut PgConnection, programme: ProgrammeId, id: UnitId) -> Result<Option<Unit>, sqlx::Error> {
    let row = sqlx::query_as!(
        UnitRow,
        "SELECT unit_id, programme_id, resource_id, display_name FROM resource_unit WHERE unit_id = $1 AND programme_id = $2",
        id.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Unit::from))
}

/// Units of a resource by id, after one.
pub async fn list_units(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    resource: ResourceId,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<Unit>, sqlx::Error> {
    let rows = sqlx::query_as!(
        UnitRow,
        "SELECT unit_id, programme_id, resource_id, display_name
         FROM resource_unit
         WHERE programme_id = $1 AND resource_id = $2 AND ($3::uuid IS NULL OR unit_id > $3)
         ORDER BY unit_id
         LIMIT $4",
        programme.0,
        resource.0,
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Unit::from).collect())
}

/// Books a unit. Days that are taken break `booking_overlap`.
pub async fn insert(conn: &mut PgConnection, booking: &Booking) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO booking (grant_id, unit_id, slot, start_date, end_date, state)
         SELECT $1, unit_id, slot, $3, $4, 'OPEN' FROM resource_unit WHERE unit_id = $2",
        booking.grant.0,
        booking.unit.0,
        booking.start,
        booking.end,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a grant's days back.
pub async fn cancel(conn: &mut PgConnection, grant: GrantId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE booking SET state = 'CANCELLED' WHERE grant_id = $1 AND state = 'OPEN'", grant.0).execute(conn).await?;
    Ok(())
}

/// Ends a grant's booking, which took the days up to `end`: it may have been shorter or longer than was planned, and takes no day from
/// others any more.
pub async fn end(conn: &mut PgConnection, grant: GrantId, end: NaiveDate) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE booking SET state = 'ENDED', end_date = $2 WHERE grant_id = $1 AND state = 'OPEN'", grant.0, end)
        .execute(conn)
        .await?;
    Ok(())
}

/// The bookings of a unit that share a day with [`start`, `end`), cancelled ones left out, by first day.
pub async fn calendar(
    conn: &mut PgConnection,
    unit: UnitId,
    start: NaiveDate,
    end: NaiveDate,
) -> Result<Vec<Booking>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT grant_id, unit_id, start_date, end_date, state
         FROM booking
         WHERE unit_id = $1 AND start_date < $3 AND end_date > $2 AND state <> 'CANCELLED'
         ORDER BY start_date, grant_id",
        unit.0,
        start,
        end,
    )
    .fetch_all(conn)
    .await?;
    let booking = |row: &str, grant, unit, start, end| Booking {
        grant: GrantId(grant),
        unit: UnitId(unit),
        start,
        end,
        ended: row == "ENDED",
    };
    Ok(rows.into_iter().map(|r| booking(&r.state, r.grant_id, r.unit_id, r.start_date, r.end_date)).collect())
}
