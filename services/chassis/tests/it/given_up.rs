//! Calls that are given up while they wait for the database.

use crate::mini;
use chrono::{DateTime, Utc};
use koc_chassis::postgres::Db;
use koc_tests::service;
use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

/// Gives a future up when it waits for the `most`th time; says whether it came to its end before.
async fn give_up<T>(work: impl Future<Output = T>, most: usize) -> bool {
    let mut work = pin!(work);
    let mut waits = 0;
    poll_fn(|cx: &mut Context<'_>| match work.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending => {
            waits += 1;
            if waits >= most { Poll::Ready(false) } else { Poll::Pending }
        }
    })
    .await
}

#[tokio::test]
async fn a_transaction_that_is_given_up_while_it_begins_leaves_none_open() {
    let database = service::database(&mini::schema()).await;
    let db = Db::new(&database.app_url, mini::schema().name, 1).expect("an address");
    db.read().await.expect("connected");
    let mut most = 1;
    loop {
        let whole = give_up(db.read(), most).await;
        // Within a transaction time stands still.
        let mut seen = Vec::new();
        for _ in 0..2 {
            let sql = "SELECT now(), current_setting('transaction_read_only')";
            let one: (DateTime<Utc>, String) = sqlx::query_as(sql).fetch_one(db.pool()).await.expect("the connection is good");
            seen.push(one);
        }
        assert!(seen[0].0 < seen[1].0 && seen.iter().all(|(_, read_only)| read_only == "off"), "at wait {most}: {seen:?}");
        if whole {
            break;
        }
        most += 1;
    }
}
