-- Does a route look like what is only asked of a server by those who search it for holes? Files whose name begins with a
-- dot, scripts of other servers, admin logins, a way up out of the folder.
CREATE OR REPLACE MACRO is_attacked(route) AS coalesce(
    regexp_matches(lower(route), '/\.[a-z]|\.(php|aspx?|jsp|cgi|sql|bak)$|/(wp-|phpmyadmin|cgi-bin|admin/login)|/\.\.(/|$)'),
    false
);
