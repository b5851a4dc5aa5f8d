-- The catalogue of resources with their cost models, and the rate tables these refer to.

CREATE TABLE resource (
    resource_id uuid CONSTRAINT resource_pkey PRIMARY KEY,
    programme_id uuid NOT NULL CONSTRAINT resource_programme REFERENCES programme,
    kind text NOT NULL CONSTRAINT resource_kind CHECK (kind IN (
        'DIGITAL_ASSET', 'HONOUR_SYSTEM', 'GIFT_KIT', 'REGIONAL_EVENT', 'STIPEND', 'GIFT_CARD', 'LOAN_VEHICLE', 'TRAVEL',
        'PRODUCTION_CREW', 'EARLY_ACCESS', 'INFORMATION_PRIVILEGE', 'PAID_BOOST')),
    display_name text NOT NULL,                     -- that of the newest version
    version bigint NOT NULL,                        -- the newest
    revision bigint NOT NULL,                       -- rises with each change, retirement too; the etag
    retire_date date,                               -- the last day of use; NULL while in use
    book_value bigint,                              -- at retirement; NULL for kinds that have nothing in the books
    proceeds bigint CONSTRAINT resource_proceeds CHECK (proceeds >= 0), -- what it was sold for
    create_time timestamptz NOT NULL,
    CONSTRAINT resource_name UNIQUE (programme_id, display_name),
    CONSTRAINT resource_version_positive CHECK (version >= 1 AND revision >= version),
    CONSTRAINT resource_retired CHECK ((book_value IS NULL) = (proceeds IS NULL) AND (book_value IS NULL OR retire_date IS NOT NULL))
);
CREATE INDEX resource_list ON resource (programme_id, resource_id);

-- Append-only, for everyone.
CREATE TABLE resource_version (
    resource_id uuid NOT NULL CONSTRAINT resource_version_resource REFERENCES resource,
    version bigint NOT NULL,                        -- dense, from 1
    resource_class text NOT NULL CONSTRAINT resource_version_class
        CHECK (resource_class IN ('INCLUSIVE', 'INCENTIVE', 'EXCLUSIVE', 'STRATEGIC_RESERVE')),
    display_name text NOT NULL,
    cost_model jsonb NOT NULL,                      -- {"kind": …} with what the kind has
    set_by text NOT NULL,
    reason text NOT NULL,
    version_time timestamptz NOT NULL,
    CONSTRAINT resource_version_pkey PRIMARY KEY (resource_id, version)
);
CREATE TRIGGER resource_version_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON resource_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Append-only, for everyone.
CREATE TABLE rate_table (
    programme_id uuid NOT NULL CONSTRAINT rate_table_programme REFERENCES programme,
    rate_table_id text NOT NULL,                    -- its name, e.g. shipping.cn
    version bigint NOT NULL,                        -- dense, from 1
    kind text NOT NULL CONSTRAINT rate_table_kind CHECK (kind IN ('KEYED', 'STEPS', 'WITHHOLDING')),
    valid_from date NOT NULL,                       -- in the programme's calendar
    source text NOT NULL,                           -- who says so
    rate_rows jsonb NOT NULL,                       -- [{"key": …, "from": …, "rate": …, …}]
    set_by text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT rate_table_pkey PRIMARY KEY (programme_id, rate_table_id, version)
);
CREATE TRIGGER rate_table_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON rate_table
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
