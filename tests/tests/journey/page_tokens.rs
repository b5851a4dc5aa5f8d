//! Page tokens that no page gave: each list says that they are not its own, and none breaks.

use koc_chassis::page;
use koc_tests::{
    answer::id,
    http::{Http, violations},
    suite::Suite,
    token,
};
use tonic::transport::Endpoint;

/// A list: where it is served, its path below the programme, and the filters that its tokens are bound to when a caller names none; `{}`
/// stands for an id in both.
struct List {
    service: &'static str,
    name: &'static str,
    path: &'static str,
    filters: &'static [&'static str],
}

const fn list(service: &'static str, name: &'static str, path: &'static str, filters: &'static [&'static str]) -> List {
    List { service, name, path, filters }
}

const LISTS: &[List] = &[
    list("registry", "ListMembers", "members", &["", "", "", ""]),
    list("registry", "ListMembers", "members?orderBy=update_time", &["", "", "", "update_time"]),
    list("registry", "ListMembers", "members?orderBy=tier_id", &["", "", "", "tier_id"]),
    list("registry", "ListMemberHistory", "members/{}/history", &["{}"]),
    list("registry", "ListBadges", "badges", &[]),
    list("registry", "ListMemberBadges", "members/{}/badges", &["{}"]),
    list("registry", "ListLeaderboard", "leaderboard", &[""]),
    list("registry", "ListPointsEntries", "members/{}/pointsEntries", &["{}"]),
    list("budget", "ListAmendments", "amendments", &[""]),
    list("budget", "ListGrants", "grants", &["", ""]),
    list("budget", "ListLedgerEntries", "envelopes/{}/ledgerEntries", &["{}", ""]),
    list("budget", "ListLedgerVerifications", "ledgerVerifications", &[]),
    list("budget", "ListMemberLimits", "memberLimits", &[""]),
    list("budget", "ListPlans", "plans", &[]),
    list("budget", "ListPromotions", "promotions", &[""]),
    list("budget", "ListRateTables", "rateTables", &[""]),
    list("budget", "ListReservations", "reservations", &["", ""]),
    list("budget", "ListReserveDraws", "reserveDraws", &["RESERVE_DRAW_STATE_UNSPECIFIED", "", "", "", "false"]),
    list("budget", "ListResources", "resources", &["0", "0"]),
    list("budget", "ListStockMovements", "resources/{}/stockMovements", &["{}"]),
    list("budget", "ListUnits", "resources/{}/units", &["{}"]),
    list("budget", "ListMemoEntries", "memoEntries", &[""]),
    list("task", "ListAssignments", "assignments", &["", ""]),
    list("task", "ListBriefs", "briefs", &[]),
    list("task", "ListTasks", "tasks", &[]),
    list("measurement", "ListDecisions", "decisions", &[""]),
    list("measurement", "ListOutputs", "outputs", &["", ""]),
    list("measurement", "ListSignals", "signals", &[""]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_page_token_is_the_callers_fault_in_every_list() {
    let suite = Suite::start(None).await;
    let (programme, of) = (id(), id());
    // Below the fingerprint, whatever somebody who knows how tokens are made may write.
    let keys = [
        "".to_owned(),
        "x".to_owned(),
        "\0".to_owned(),
        format!("\0/{of}"),
        format!("{of}\0"),
        "-9223372036854775808".to_owned(),
        "99999999999999999999999".to_owned(),
        format!("{of}/-9000000000000000000"),
        format!("{of}/9000000000000000000"),
        format!("-9000000000000000000/{of}"),
        format!("9000000000000000000/{of}"),
        "é/é/é".to_owned(),
    ];
    for List { service, name, path, filters } in LISTS {
        let channel = Endpoint::from_shared(suite.url(service)).expect("an address of ours").connect_lazy();
        let http = Http::new(channel, Some(token::all("forger")));
        let bound: Vec<String> = filters.iter().map(|filter| filter.replace("{}", &of)).collect();
        let bound: Vec<&str> = std::iter::once(programme.as_str()).chain(bound.iter().map(String::as_str)).collect();
        let ask = async |token: &str| {
            let (path, sign) = (path.replace("{}", &of), if path.contains('?') { '&' } else { '?' });
            http.get(&format!("/v1/programmes/{programme}/{path}{sign}pageToken={token}")).await
        };
        let refused = |answer: koc_tests::http::Answer, what: &str| {
            assert_eq!(answer.status, 400, "{name} with {what:?}: {}", String::from_utf8_lossy(&answer.body));
            let found = violations(&answer.json()["error"]);
            assert_eq!(found, [("pageToken".to_owned(), "PAGE_TOKEN_INVALID".to_owned())], "{name} with {what:?}");
        };
        for forged in ["x", "%25%25", page::token("ListOthers", &bound, &of).as_str()] {
            refused(ask(forged).await, forged);
        }
        for key in &keys {
            let answer = ask(&page::token(name, &bound, key)).await;
            // Some keys are as good as those that a page gives; what no row can hold is none.
            match answer.status {
                200 | 404 if !key.contains('\0') => {}
                _ => refused(answer, key),
            }
        }
    }
}
