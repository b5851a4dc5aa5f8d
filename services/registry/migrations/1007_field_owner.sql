-- Which source system a field of the profile belongs to. A field without a row, or whose system is empty, is nobody's: the most recent
-- write stands. Why it was set stands in the audit entry.
CREATE TABLE field_owner (
    programme_id uuid NOT NULL CONSTRAINT field_owner_programme REFERENCES programme,
    field text NOT NULL,               -- as in the contract, e.g. region_code
    source_system text NOT NULL,       -- empty: nobody
    version bigint NOT NULL,           -- from 1; rises each time it is set
    actor text NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT field_owner_pkey PRIMARY KEY (programme_id, field)
);
