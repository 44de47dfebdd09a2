"""What an edit did to the people in the pictures: measured, compared, kept, and how far the measure can be trusted."""
