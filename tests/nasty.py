"Texts that make a careless parser slow: each is a motif, written `n` characters long."

from itertools import cycle, islice

# what is repeated, and what stands once in front of it
WIKITEXT = {
    "open templates": ("{{", ""),
    "open templates with names": ("{{a|", ""),
    "open templates with blanks": ("{{ \n", ""),
    "open links": ("[[", ""),
    "open links with text": ("[[a|", ""),
    "open tags": ("<b>", ""),
    "open list items": ("<li>", "http://a"),
    "open references": ("<ref>", ""),
    "open attributes": ('<b a="', ""),
    "tags closed in their attributes": ("<b a='</b>", ""),
    "open tables": ("{|\n|-\n", ""),
    "open web links": ("[http://a ", ""),
    "open comments": ("<!--", ""),
    "open arguments": ("{{{a|", ""),
    "crossed brackets": ("{{[[}}]]", ""),
    "crossed tags": ("<b><i></b></i>", ""),
    "closed before they are open": ("}}</b>{{<b>", ""),
    "bold and italic": ("'''''a ''b", ""),
    "apostrophes": ("'", ""),
    "list bullets": ("*", "\n"),
    "lists": ("*#:; a\n", ""),
    "headings": ("==a\n", ""),
    "headings of references": ("=references\n", ""),
    "entities": ("&amp;&#x41;&x", ""),
    "web addresses": ("http://a.b ", ""),
    "a template of blanks": (" ", "{{"),
    "a disambiguation that never ends": ("disambig", "{{"),
    "arguments of convert": ("1|-|", "{{convert|"),
    "nested templates": ("{{a|" * 20 + "}}" * 20, ""),
    "nested lists": ("[[File:a|[[b|''c'']]]]", ""),
}
TIDY = {
    "commas": (",", "a"),
    "dashes and blanks": (" –", "a"),
    "open brackets": ("( ,", ""),
    "blanks": (" ", "(a"),
    "empty lines": ("\n \t", "a"),
    "bullets": ("\x01", ""),
    "full stops": (".", "a"),
    "closed quotes": ("\"'", "a."),
    "underscores": ("__A", ""),
    "pairs of marks": (",;", "a"),
}
PROSE = {
    "abbreviations": ("Mr. ", ""),
    "initials": ("A. ", ""),
    "one word": ("a", ""),
    "one dotted word": ("a.", ""),
    "dots": (". ", ""),
    "quotes and brackets": ('.") (["', ""),
    "blanks after a stop": (" ", "The end."),
    "ellipses": ("… a", ""),
    "capitals": ("AB ", ""),
    "short words": ("a b ", ""),
    "sentences": ("The lake is deep. ", ""),
    "ideographs": ("湖。", ""),
    "lines": ("a\n", ""),
}
NAMES = {
    "names": ("Ab ", ""),
    "joined names": ("Ab of the ", ""),
    "hyphens": ("-", "A"),
    "apostrophes in a name": ("A'", ""),
    "dotted names": ("A.b.", ""),
    "groups of digits": ("111 ", ""),
    "digits": ("1", "$"),
    "decimals": ("1.1,", ""),
    "years": ("1901–1902 ", ""),
    "months": ("May 1, ", ""),
    "centuries": ("the early 1st ", ""),
}


def text(motif: tuple[str, str], n: int) -> str:
    "The motif, `n` characters long."
    repeated, front = motif
    return front + "".join(islice(cycle(repeated), n))
