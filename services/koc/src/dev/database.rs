//! The database of `koc dev`: a private server or one that is named, with roles and schemas.

use crate::migrate::Target;
use anyhow::Context;
use koc_chassis::{
    cluster::{self, Binaries, Cluster, ClusterOptions, Source},
    postgres,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{collections::HashMap, path::Path, str::FromStr};

const NAME: &str = "koc";
const PASSWORD_BYTES: usize = 16;

/// A server to work on; a private one ends when this is dropped.
pub struct Database {
    superuser_url: String,
    _cluster: Option<Cluster>,
}

/// How the services reach their schemas.
pub struct Access(HashMap<&'static str, String>);

impl Access {
    /// The application role's address for a service.
    pub fn url(&self, service: &str) -> String {
        self.0.get(service).cloned().unwrap_or_default()
    }
}

impl Database {
    /// Starts the private server, or takes the one at `url`. Blocks; call it from the main thread.
    pub fn open(url: Option<&str>, state: &Path, source: Source, fresh: bool) -> anyhow::Result<Self> {
        if let Some(url) = url {
            return Ok(Self { superuser_url: url.to_owned(), _cluster: None });
        }
        let folder = state.join("postgres");
        if fresh {
            cluster::erase(&folder)?;
        }
        let binaries = Binaries::find_or_install(state, source)?;
        let mut options = ClusterOptions::new(folder, binaries);
        options.settings =
            [("max_connections", "200"), ("shared_buffers", "128MB")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let cluster = Cluster::start(options)?;
        Ok(Self { superuser_url: cluster.superuser_url("postgres"), _cluster: Some(cluster) })
    }

    /// Makes the database, roles and schemas where they are missing and brings them up to date. Says whether there is no
    /// programme yet.
    pub async fn set_up(&self, fresh: bool) -> anyhow::Result<(Access, bool)> {
        let options =
            PgConnectOptions::from_str(&self.superuser_url).context("KOC_DATABASE_URL is not an address of Postgres")?;
        let mut conn = options.connect().await.context("the database cannot be reached")?;
        let named = self._cluster.is_none();
        // In a server that was named, its own database is used.
        let url = if named {
            self.superuser_url.clone()
        } else {
            let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(NAME)
                .fetch_one(&mut conn)
                .await?;
            if !exists {
                sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {NAME}"))).execute(&mut conn).await?;
            }
            with_database(&self.superuser_url, NAME)
        };
        conn.close().await?;

        let mut conn = PgConnectOptions::from_str(&url)?.connect().await?;
        let mut access = HashMap::new();
        for schema in Target::All.schemas() {
            if fresh {
                sqlx::query(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", schema.name))).execute(&mut conn).await?;
            }
            let (owner, app) = (format!("koc_{}_owner", schema.name), format!("koc_{}_app", schema.name));
            // New ones at each start: nothing has to be kept.
            let [owner_password, app_password] = [(); 2].map(|()| hex::encode(rand::random::<[u8; PASSWORD_BYTES]>()));
            postgres::bootstrap(&url, schema.name, (&owner, &owner_password), (&app, &app_password)).await?;
            postgres::migrate(&with_role(&url, &owner, &owner_password)?, &schema, &app).await?;
            access.insert(schema.name, with_role(&url, &app, &app_password)?);
        }
        let empty = is_empty(&mut conn).await?;
        conn.close().await?;
        Ok((Access(access), empty))
    }
}

async fn is_empty(conn: &mut PgConnection) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM registry.programme)").fetch_one(conn).await?)
}

/// Splits `scheme://user@host/database?query` at the authority's end.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..]))
}

fn with_database(url: &str, database: &str) -> String {
    match parts(url) {
        Some((scheme, authority, rest)) => {
            let query = rest.find('?').map_or("", |at| &rest[at..]);
            format!("{scheme}://{authority}/{database}{query}")
        }
        None => url.to_owned(),
    }
}

fn with_role(url: &str, role: &str, password: &str) -> anyhow::Result<String> {
    let (scheme, authority, rest) = parts(url).context("the database's address has no scheme")?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Ok(format!("{scheme}://{role}:{password}@{host}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_takes_the_place_of_the_superuser_and_the_rest_stays() {
        let url = "postgres://admin:p%40ss@db.internal:5432/koc?sslmode=require";
        let ours = with_role(url, "koc_task_app", "secret").unwrap();
        assert_eq!(ours, "postgres://koc_task_app:secret@db.internal:5432/koc?sslmode=require");
        assert_eq!(with_role("postgres://localhost", "r", "s").unwrap(), "postgres://r:s@localhost");
        assert_eq!(with_database("postgres://a:b@h:1/postgres?x=y", "koc"), "postgres://a:b@h:1/koc?x=y");
    }
}
