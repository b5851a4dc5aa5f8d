//! The RPCs: decode, call, encode.

pub mod convert;
pub mod decision;
pub mod error;
pub mod observation;
pub mod output;
pub mod signal;
pub mod value;

use crate::{error::Error, peer::Peers, store};
use koc_chassis::{
    clock,
    gate::Gate,
    ids::{MemberId, ProgrammeId},
    members::{self, Purpose, Standing},
};
use sqlx::PgConnection;

koc_chassis::feed_service!(koc_proto::koc::measurement::v1, Error);

/// Opens a programme that this service was not told of yet, by asking the registry.
///
/// # Errors
/// `ProgrammeNotFound`; `Registry` when it does not answer.
async fn ensure_programme(gate: &Gate<Error>, peers: &Peers, programme: ProgrammeId) -> Result<(), Error> {
    let mut conn = gate.db().read().await?;
    if store::programme::find(&mut conn, programme).await?.is_some() {
        return Ok(());
    }
    drop(conn);
    let currency = peers.currency(programme).await.map_err(Error::Registry)?;
    let currency = currency.ok_or(Error::ProgrammeNotFound(programme))?;
    let mut tx = gate.db().begin().await?;
    let now = clock::now(&mut tx).await?;
    store::programme::open(&mut tx, programme, &currency, now).await?;
    tx.commit().await?;
    Ok(())
}

/// How a member stands who may be judged.
///
/// # Errors
/// `ConsentWithdrawn` for who does not consent to profiling.
async fn judged(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Standing, Error> {
    let standing = members::standing(conn, programme, member).await?;
    match standing.withdrew(Purpose::Profiling) {
        true => Err(Error::ConsentWithdrawn { member, purpose: Purpose::Profiling }),
        false => Ok(standing),
    }
}
