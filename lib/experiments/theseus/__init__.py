"""Chapter 9: BERT-of-Theseus, a network made smaller by replacing its parts."""
