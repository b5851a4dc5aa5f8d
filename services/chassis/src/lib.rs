//! What all services of the suite share. Each piece is used by all of them; nothing here knows what a service is for.
//!
//! Reading order: the values ([`ids`], [`money`], [`clock`]), what can go wrong ([`fault`]), the way of a call ([`transcode`], [`auth`],
//! [`token`], [`admission`], [`gate`], [`lane`]), what travels between services ([`outbox`], [`sequencer`], [`feed`], [`consumer`],
//! [`job`], [`peer`]; [`members`] and [`follow`] for what all keep of the registry's members), and what carries it all ([`config`], [`postgres`], [`telemetry`], [`vitals`], [`server`]); and apart from all, a
//! private Postgres for development and tests ([`cluster`]).

pub mod clock;
pub mod ids;
pub mod money;

pub mod fault;
pub mod page;

pub mod admission;
pub mod auth;
pub mod context;
pub mod gate;
pub mod lane;
pub mod token;
pub mod transcode;

pub mod consumer;
pub mod feed;
pub mod follow;
pub mod job;
pub mod members;
pub mod outbox;
pub mod peer;
pub mod privacy;
pub mod sequencer;

pub mod config;
pub mod postgres;
pub mod server;
pub mod telemetry;
pub mod vitals;

pub mod cluster;
