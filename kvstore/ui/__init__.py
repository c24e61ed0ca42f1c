"""The page in which a store is looked at: as a file (``kvstore inspect … --html``) and live (``kvstore serve --ui``).

    document    one HTML document: style, scripts and data in it, and the policy that lets nothing else run or load
    shown       keys and values as the page gets them

The page itself, which needs no build:

    page.css
    diff.js     what differs between two texts, line by line
    parts.js    what all of the page is made of: elements, numbers, the address, the tree of keys
    key.js      one key: its versions, its value, what changed
    saved.js    where the page gets what it shows: from the data inside the document
    live.js     or from a server

Keys and values are hostile. They reach the document as text nodes, never as markup.
"""
