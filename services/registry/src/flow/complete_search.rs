//! Names that were written without what they are found by: by an older version, at an upgrade and during one. They are found meanwhile
//! by reading them all.

use crate::store;
use koc_chassis::postgres::Db;

/// Names in one transaction.
const PART: i64 = 1_000;

/// Completes names, part by part, until none is left. Failures are logged; the next run tries again.
pub async fn sweep(db: Db) {
    loop {
        match part(&db).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %error, "names could not be completed; trying again in some seconds");
                return;
            }
        }
    }
}

async fn part(db: &Db) -> Result<usize, sqlx::Error> {
    let mut tx = db.begin().await?;
    let completed = store::search::complete(&mut tx, PART).await?;
    tx.commit().await?;
    Ok(completed)
}
