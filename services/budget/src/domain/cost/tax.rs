//! The tax on what a member gets, by the rule table in force. Where no rule covers the day or the category nothing is guessed.

use super::{
    CostError,
    estimate::{Source, Tax, TaxStatus},
    from_minor,
    model::{TaxBearer, TaxRule},
    rate_table::{RateTable, Row, TableKind},
    sheet::{Nature, Sheet},
    to_minor,
};
use rust_decimal::{Decimal, prelude::ToPrimitive};

/// Adds the tax on `count` payments of `payment` each: withheld from it, or paid on top so that the member gets all of it. The tax on
/// one payment becomes money before it is multiplied.
pub fn tax(sheet: &mut Sheet<'_>, rule: &TaxRule, payment: Decimal, count: Decimal) -> Result<(), CostError> {
    let category = sheet.usage.tax_category.clone();
    let category = sheet.assumed("tax_category", &Some(category.unwrap_or_else(|| rule.tax_category.clone())), String::new());
    sheet.assumed("tax_bearer", &Some(rule.tax_bearer.as_str()), "");
    let table = sheet.table(&rule.tax_table_id, TableKind::Withholding)?;
    let found = table.and_then(|table| {
        let withheld = match rule.tax_bearer {
            TaxBearer::Member => withheld(table, &category, payment),
            TaxBearer::Brand => grossed_up(table, &category, payment).map(|gross| gross - payment),
        };
        Some((withheld?, Source::of_table(table)))
    });
    let Some((exact, source)) = found else {
        sheet.tax(Tax { status: TaxStatus::Undetermined, category, withheld: None, net: None, source: None });
        return Ok(());
    };
    let currency = sheet.currency;
    let amounts = to_minor(exact, currency).zip(to_minor(payment, currency)).zip(count.to_i64());
    let totals = amounts.and_then(|((tax, payment), count)| {
        let net = if rule.tax_bearer == TaxBearer::Member { payment - tax } else { payment };
        Some((tax, tax.checked_mul(count)?, net.checked_mul(count)?))
    });
    let Some((tax, withheld, net)) = totals else {
        sheet.too_large();
        return Ok(());
    };
    if rule.tax_bearer == TaxBearer::Brand {
        sheet.add_from(source.clone(), "tax", Nature::Marginal, count, "payment", from_minor(tax, currency));
    }
    let status = TaxStatus::Determined;
    sheet.tax(Tax { status, category, withheld: Some(withheld), net: Some(net), source: Some(source) });
    Ok(())
}

/// The tax on a payment; None without a rule.
fn withheld(table: &RateTable, category: &str, payment: Decimal) -> Option<Decimal> {
    table.row(category, payment).map(|row| by_row(row, payment))
}

fn by_row(row: &Row, payment: Decimal) -> Decimal {
    let taxed = (payment * row.taxable_share - row.allowance).max(Decimal::ZERO);
    (taxed * row.rate - row.deduction).max(Decimal::ZERO)
}

/// The least payment of which `net` is left after tax; None without a rule, or when tax leaves no such payment.
fn grossed_up(table: &RateTable, category: &str, net: Decimal) -> Option<Decimal> {
    let rows = table.rows_of(category);
    let mut bounds = rows.iter().skip(1).map(|row| Some(row.from)).chain([None]);
    rows.iter().find_map(|row| {
        let below = bounds.next()?;
        let fits = |gross: &Decimal| *gross >= row.from.max(net) && below.is_none_or(|below| *gross < below);
        // In a row the tax is zero at first and then a straight line: net = gross − (gross × share − allowance) × rate + deduction.
        let kept = Decimal::ONE - row.taxable_share * row.rate;
        let on_line = (net - row.allowance * row.rate - row.deduction).checked_div(kept);
        let free = Some(net).filter(|gross| by_row(row, *gross).is_zero());
        let taxed = on_line.filter(|gross| !by_row(row, *gross).is_zero());
        [free, taxed].into_iter().flatten().find(fits)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::rate_table::RowText, *};
    use crate::domain::cost::rate_table::tests::table;
    use proptest::prelude::*;
    use rust_decimal::dec;

    /// An example, and no tax law: 20 % above 800, of four fifths from 4,000 on, 30 % less 2,000 from 25,000 on.
    fn example() -> RateTable {
        let row = |from, rate, allowance, taxable_share, deduction| RowText {
            key: "PAY",
            from,
            rate,
            allowance,
            taxable_share,
            deduction,
        };
        let rows = [row("0", "0.2", "800", "", ""), row("4000", "0.2", "", "0.8", ""), row("25000", "0.3", "", "0.8", "2000")];
        table("tax.example", TableKind::Withholding, &rows)
    }

    #[test]
    fn a_payment_is_taxed_by_the_row_that_holds_it() {
        let tax = |payment| withheld(&example(), "PAY", payment);
        assert_eq!((tax(dec!(500)), tax(dec!(3_000)), tax(dec!(10_000))), (Some(dec!(0)), Some(dec!(440)), Some(dec!(1_600))));
        assert_eq!(tax(dec!(30_000)), Some(dec!(5_200)));
        assert_eq!(withheld(&example(), "PRIZE", dec!(10)), None);
    }

    #[test]
    fn what_is_grossed_up_leaves_the_net_payment() {
        assert_eq!(grossed_up(&example(), "PAY", dec!(500)), Some(dec!(500)));
        assert_eq!(grossed_up(&example(), "PAY", dec!(8_400)), Some(dec!(10_000)));
        assert_eq!(grossed_up(&example(), "PRIZE", dec!(8_400)), None);
    }

    proptest! {
        #[test]
        fn tax_on_the_grossed_up_payment_leaves_the_net(net in 0_i64..10_000_000) {
            let net = Decimal::new(net, 2);
            let gross = grossed_up(&example(), "PAY", net).expect("a payment");
            let tax = withheld(&example(), "PAY", gross).expect("a rule");
            prop_assert_eq!((gross - tax).round_dp(9), net);
        }
    }
}
