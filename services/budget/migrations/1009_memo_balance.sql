-- What stands in each memo account, so that a programme's totals are not sums of all its entries. A trigger keeps them, and not the service:
-- replicas of the version before this one post entries too while they are replaced.
CREATE TABLE memo_balance (
    programme_id uuid NOT NULL,
    account text NOT NULL,
    part smallint NOT NULL,                         -- by the grant, 0 to 15: grants that post at once seldom wait for each other
    balance bigint NOT NULL,                        -- debits less credits, minor units; the account's is the sum of its parts'
    CONSTRAINT memo_balance_pkey PRIMARY KEY (programme_id, account, part)
) WITH (fillfactor = 50);

CREATE FUNCTION add_memo_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memo_balance AS b (programme_id, account, part, balance)
    SELECT m.programme_id, side.account, get_byte(uuid_send(m.grant_id), 15) % 16, sum(side.amount)
    FROM added AS m
    CROSS JOIN LATERAL (VALUES (m.debit_account, m.amount), (m.credit_account, -m.amount)) AS side (account, amount)
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    ON CONFLICT (programme_id, account, part) DO UPDATE SET balance = b.balance + EXCLUDED.balance;
    RETURN NULL;
END $$;
CREATE TRIGGER memo_entry_added AFTER INSERT ON memo_entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_memo_balances();

-- The trigger's lock keeps others from posting until this is committed.
INSERT INTO memo_balance (programme_id, account, part, balance)
SELECT m.programme_id, side.account, get_byte(uuid_send(m.grant_id), 15) % 16, sum(side.amount)
FROM memo_entry AS m
CROSS JOIN LATERAL (VALUES (m.debit_account, m.amount), (m.credit_account, -m.amount)) AS side (account, amount)
GROUP BY 1, 2, 3;
