"""The command `errata rotate-secret`: a new secret for keyed fingerprints, and what that means."""

import click

_EPILOG = """\b
Examples:
  errata rotate-secret
  ERRATA_KEY_FILE=/etc/errata/fingerprint.key errata rotate-secret --yes
"""


@click.command("rotate-secret", epilog=_EPILOG)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rotate_secret(yes: bool) -> None:
    """Make a new secret for the fingerprints of keys.

    The lake holds no key: it holds a fingerprint, made with a secret that is kept outside. Rotate the secret when
    somebody may have read it. A fingerprint from before and one from after do not match, so that each key and each
    masked id or path is counted as a new one from then on. Nothing in a lake is changed, and the old secret is not
    kept.
    """
    from ingest.fingerprint import key_path, rotate_key

    if not yes:
        click.confirm(
            f"Replace the secret in {key_path()}? Fingerprints from before will not match those from after it.",
            abort=True,
            err=True,
        )
    before, after = rotate_key()
    if not before:
        click.echo(f"{key_path()}: made a secret ({after}); there was none", err=True)
        return
    click.echo(
        f"{key_path()}: replaced the secret {before} by {after}.\n"
        "Callers without a key_id count as new ones from the next ingest on. To have one fingerprint for each over all "
        "days, ingest the logs again into a new lake.\n"
        "Who has the old secret can still test a guessed key against the old fingerprints: where it leaked, delete the "
        "lakes that it made, or keep them from others.",
        err=True,
    )
