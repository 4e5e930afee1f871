"""Articles to data: panels with their sub-captions, concepts, patient notes and how they relate."""
