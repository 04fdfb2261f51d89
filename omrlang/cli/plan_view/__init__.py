"""The views of a plan: text, Markdown, one page of HTML. They show what the plan holds and decide nothing."""
