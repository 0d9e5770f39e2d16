-- Makes the session act as another role, as SET ROLE does.
SELECT set_config('role', %(name)s, false)
