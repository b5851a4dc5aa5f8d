-- Who does not take part in everything: other services read them all when they begin. They are few of many, so the index is small.
CREATE INDEX member_stopped ON member (programme_id, member_id)
    WHERE state <> 'ACTIVE' OR consents @> '[{"granted": false}]';
