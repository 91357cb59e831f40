"""Links from docs/ to other files of the repository, which the site does not have.

They become links to `repo_url`; without one, plain text. GitHub and editors follow the
relative links, and tests/python/package/test_documents.py checks their targets.
"""

import re

OUTSIDE = re.compile(r"(?<!!)\[([^\]]*)\]\(\.\./([^)\s]+)\)")


def on_page_markdown(markdown, *, config, **_):
    if config.repo_url:
        root = f"{config.repo_url.rstrip('/')}/blob/main"
        return OUTSIDE.sub(rf"[\1]({root}/\2)", markdown)
    return OUTSIDE.sub(r"\1", markdown)
