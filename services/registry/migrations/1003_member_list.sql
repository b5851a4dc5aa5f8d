-- What members are listed by. Who is NEW, which nearly everybody is at first, is found by walking the order asked for.
CREATE INDEX member_by_create_time ON member (programme_id, create_time, member_id);
CREATE INDEX member_by_update_time ON member (programme_id, update_time, member_id);
CREATE INDEX member_by_trust_level ON member (programme_id, trust_level, member_id) WHERE trust_level <> 'NEW';
-- What a member has some of.
CREATE INDEX member_by_having ON member
    USING gin (motivations jsonb_path_ops, (jsonb_path_query_array(channels, '$[*].platform')) jsonb_path_ops);
